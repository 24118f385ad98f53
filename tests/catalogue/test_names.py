"""What a model's name means, and what is said of one that means nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from finetuner_core.catalogue.names import is_path, resolve, search
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import PluginError, UnknownNameError, WeightsError
from tests.conftest import InstallPlugin

IMPORTS = "from finetuner_core.plugin import BackboneInfo, WeightsError, hookimpl\n"
OTHER = f"""{IMPORTS}
@hookimpl
def list_backbones():
    return [
        BackboneInfo("letters", "text-to-text", 4, "toy", "Other letters"),
        BackboneInfo("acme/pixels", "image-to-image", 4, "toy", "A name with another plugin's in front"),
        BackboneInfo("acme/third", "image-to-image", 4, "toy", "A name that looks like another plugin's"),
    ]

@hookimpl
def find_backbone(name):
    if "config.json" in __import__("os").listdir(name):
        return BackboneInfo(name, "all", 4, "toy", "")
"""


def finding(body: str) -> str:
    """A plugin whose `find_backbone` does this."""
    return f"{IMPORTS}@hookimpl\ndef find_backbone(name):\n    {body}\n"


@pytest.fixture
def other(install_plugin: InstallPlugin) -> None:
    """A second plugin, some of whose names are those of the toy plugin."""
    install_plugin("other", OTHER)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the toy plugin's format, `./letters` from where the test is."""
    path = tmp_path / "here" / "letters"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"acme": "letters"}))
    monkeypatch.chdir(path.parent)
    return path


def error_of(name: str, kind: type[Exception] = UnknownNameError) -> str:
    with pytest.raises(kind) as caught:
        resolve(catalogue(), name)
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["./x", "../x", "/x", "~/x", ".", "..", "~", ".\\x", "..\\x", "C:\\x", "./openai/clip", "~/"]
)
def test_what_looks_like_a_path_is_one(name: str) -> None:
    assert is_path(name)


@pytest.mark.parametrize("name", ["x", "a/b", "openai/clip", ".x", "~x", "", "C:x", "a/../b", "a:/b", "..."])
def test_what_does_not_is_a_name(name: str) -> None:
    assert not is_path(name)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("name", ["letters", "acme/letters"])
def test_a_listed_model_is_found_by_its_bare_and_its_full_name(name: str) -> None:
    row = resolve(catalogue(), name)
    assert (row.full_name, row.output_dim) == ("acme/letters", 16)


@pytest.mark.usefixtures("acme", "other")
def test_a_bare_name_of_two_is_refused_with_both_spellings() -> None:
    assert error_of("letters") == ('"letters" is listed by more than one plugin.\nWrite acme/letters or other/letters.')
    assert resolve(catalogue(), "other/letters").output_dim == 4
    assert resolve(catalogue(), "acme/letters").output_dim == 16


@pytest.mark.usefixtures("acme", "other")
def test_a_full_name_is_never_ambiguous() -> None:
    assert resolve(catalogue(), "acme/pixels").namespace == "acme"
    assert resolve(catalogue(), "other/acme/pixels").namespace == "other"


@pytest.mark.usefixtures("acme", "other")
def test_a_bare_name_may_hold_a_slash() -> None:
    assert resolve(catalogue(), "acme/third").full_name == "other/acme/third"


def test_a_model_that_is_not_listed_is_asked_for(install_plugin: InstallPlugin) -> None:
    install_plugin("any", finding('return BackboneInfo(name, "all", 3, "toy", "", namespace="liar")'))
    assert resolve(catalogue(), "any/a/b").full_name == "any/a/b"


@pytest.mark.usefixtures("acme")
def test_a_name_that_its_plugin_does_not_know_gets_near_ones() -> None:
    assert error_of("acme/leters") == (
        'Plugin "acme" knows no model "leters". Did you mean "letters"?\n'
        "See all of its models: finetuner list --search 'acme/*'"
    )
    assert ' Did you mean "unlisted"?\n' in error_of("acme/unliste"), "near are also those that are not listed"


@pytest.mark.usefixtures("acme")
def test_near_names_come_though_another_plugin_cannot_be_asked(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", f"{IMPORTS}@hookimpl\ndef find_backbone_names(pattern):\n    1 / 0\n")
    assert error_of("acme/leters").startswith('Plugin "acme" knows no model "leters". Did you mean "letters"?')


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("leters", 'No model is named "leters". Did you mean "letters" or "acme/letters"?'),
        ("LETTERS", 'No model is named "LETTERS". Did you mean "letters"'),
        ("zzz", 'No model is named "zzz".'),
        ("zzz/letters", 'No model is named "zzz/letters". Did you mean "letters"'),
        ("acme/", 'No model is named "acme/".'),
        ("", 'No model is named "".'),
        ("a\nb", 'No model is named "a\\nb".'),
        ("x" * 5000, f'No model is named "{"x" * 58}...{"x" * 59}".'),
    ],
    ids=lambda text: text[:10],
)
def test_an_unknown_name_gets_near_names_and_what_to_install(name: str, first: str) -> None:
    said, cure = error_of(name).splitlines()
    assert said.startswith(first)
    assert cure == (
        "Plugins that are not installed may know it: pip install finetuner-timm (images), "
        "finetuner-hf (text, and text with images), finetuner-mlp (vectors)"
    )


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("plugin", ["timm", "hf", "mlp", "openclip", "metric-learning"])
def test_the_model_of_a_missing_official_plugin_says_what_to_install(plugin: str) -> None:
    assert error_of(f"{plugin}/anything") == (
        f'The plugin "{plugin}" is not installed.\nInstall it: pip install finetuner-{plugin}'
    )


def test_where_nothing_is_missing_the_plugins_name_is(install_plugin: InstallPlugin) -> None:
    for namespace in ("timm", "hf", "mlp"):
        install_plugin(namespace, finding("return None"), distribution=f"toy-{namespace}")
    assert error_of("convnext_nano").splitlines()[1] == (
        "A model that is not in the table needs its plugin's name before it, such as timm/convnext_nano"
    )


@pytest.mark.usefixtures("acme")
def test_a_failed_plugin_is_named_when_its_model_is_asked_for(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", "1 / 0")
    problem = 'Plugin "broken" (finetuner-broken 1.0) failed: its import raised ZeroDivisionError: division by zero'

    assert error_of("broken/model", PluginError).splitlines()[0] == problem
    assert error_of("model").splitlines() == ['No model is named "model".', problem]
    assert resolve(catalogue(), "letters").namespace == "acme"


def test_a_namespace_of_two_says_so(install_plugin: InstallPlugin) -> None:
    for distribution in ("finetuner-one", "finetuner-two"):
        install_plugin("twin", OTHER, distribution=distribution)
    said = error_of("twin/letters", PluginError)
    assert "finetuner-one" in said
    assert "finetuner-two" in said


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("1 / 0", PluginError, "failed in find_backbone: ZeroDivisionError: division by zero"),
        ("raise SystemExit(2)", PluginError, "failed in find_backbone: SystemExit: 2"),
        ("return name", PluginError, 'find_backbone gave "model", not a BackboneInfo.'),
        ("return 0", PluginError, 'find_backbone gave "0", not a BackboneInfo.'),
        ("yield name", PluginError, "find_backbone gave \"('model',)\", not a BackboneInfo."),
        ("raise WeightsError('The hub is away.')", WeightsError, "The hub is away."),
        ("return None", UnknownNameError, 'Plugin "odd" knows no model "model".'),
    ],
)
def test_what_find_backbone_does_wrong_is_said(
    install_plugin: InstallPlugin, body: str, kind: type[Exception], says: str
) -> None:
    install_plugin("odd", finding(body))
    assert says in error_of("odd/model", kind)


@pytest.mark.usefixtures("acme")
def test_a_folder_is_claimed_by_the_plugin_whose_format_it_has(folder: Path) -> None:
    for name in ("./letters", "../here/letters", str(folder), "./letters/"):
        row = resolve(catalogue(), name)
        assert (row.namespace, row.name) == ("acme", str(folder))
    assert resolve(catalogue(), f"acme/{folder}").name == str(folder)


@pytest.mark.usefixtures("acme", "folder")
def test_a_folder_never_shadows_a_name() -> None:
    assert resolve(catalogue(), "letters").name == "letters"


@pytest.mark.usefixtures("acme")
def test_a_folder_whose_name_is_no_models_is_told_how_to_open(folder: Path) -> None:
    folder.rename(folder.with_name("mine"))
    assert error_of("mine") == 'No model is named "mine".\nTo open the folder of that name, write ./mine'
    assert resolve(catalogue(), "./mine").output_dim == 16


@pytest.mark.usefixtures("acme")
def test_home_is_meant_by_a_tilde_in_front_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert resolve(catalogue(), "~/letters").name == str(folder)
    assert error_of("./~nobody-is-called-so") == f'There is no folder "{folder.parent / "~nobody-is-called-so"}".'


@pytest.mark.parametrize("name", ["./nothing", "./file", "./" + "x" * 5000, "./" + "y/" * 3000], ids=lambda n: n[:9])
def test_a_path_without_a_folder_is_an_error(folder: Path, name: str) -> None:
    (folder.parent / "file").touch()
    assert error_of(name).startswith('There is no folder "')


@pytest.mark.usefixtures("acme")
def test_a_folder_that_nobody_claims_says_who_was_asked(folder: Path, install_plugin: InstallPlugin) -> None:
    (folder / "config.json").unlink()
    said = f'"{folder}" is no saved model, and no plugin knows its format (asked: acme).\n'

    assert error_of("./letters") == f"{said}A model folder holds a finetuner.json or its library's config.json."
    install_plugin("broken", "1 / 0")
    assert error_of("./letters") == said + catalogue().problems[0], "it may be the one that knows it"


@pytest.mark.usefixtures("acme", "other")
def test_a_folder_that_two_claim_is_refused_with_both_spellings(folder: Path) -> None:
    assert error_of("./letters") == (
        f'More than one plugin can open "{folder}".\nWrite acme/{folder} or other/{folder}.'
    )
    assert resolve(catalogue(), f"other/{folder}").namespace == "other"


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("body", ["1 / 0", "return 'rubbish'", "raise WeightsError('The hub is away.')"])
def test_a_plugin_that_fails_over_a_folder_keeps_nobody_from_it(
    folder: Path, install_plugin: InstallPlugin, body: str
) -> None:
    install_plugin("aaa", finding(body))
    assert resolve(catalogue(), "./letters").namespace == "acme"

    (folder / "config.json").unlink()
    with pytest.raises((PluginError, WeightsError), match=r"aaa|The hub is away"):
        resolve(catalogue(), "./letters")


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["acme/both", "acme/letters", "acme/numbers", "acme/pixels", "acme/unlisted"]),
        ("*e*s", ["acme/letters", "acme/numbers", "acme/pixels"]),
        ("acme/l*", ["acme/letters"]),
        ("unlisted", ["acme/unlisted"]),
        ("other/*", []),
        ("LETTERS", []),
        ("", []),
    ],
)
def test_search_finds_what_is_listed_and_what_is_not(pattern: str, names: list[str]) -> None:
    assert search(catalogue(), pattern) == (names, [])


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("1 / 0", 'Plugin "odd" (finetuner-odd 1.0) failed in find_backbone_names: ZeroDivisionError: *'),
        ("yield; raise OSError('late')", 'Plugin "odd" (finetuner-odd 1.0) failed in find_backbone_names: OSError: *'),
        ("return 'letters'", 'Plugin "odd": find_backbone_names gave "letters", not names.'),
        ("return 5", 'Plugin "odd": find_backbone_names gave "5", not names.'),
        ("return ['x', None]", 'Plugin "odd": find_backbone_names gave "[\'x\', None]", not names.'),
    ],
)
def test_a_search_shows_what_it_can(install_plugin: InstallPlugin, body: str, says: str) -> None:
    install_plugin("odd", f"{IMPORTS}@hookimpl\ndef find_backbone_names(pattern):\n    {body}\n")
    names, (problem,) = search(catalogue(), "l*")

    assert names == ["acme/letters"]
    assert problem.startswith(says.removesuffix("*"))
    assert "\n" not in problem


@pytest.mark.usefixtures("acme")
def test_a_search_names_the_plugins_that_did_not_load(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", "1 / 0")
    assert search(catalogue(), "letters") == (["acme/letters"], catalogue().problems)
    assert len(catalogue().problems) == 1, "asking does not add to what discovery found"


def test_paths_of_this_system_are_paths(tmp_path: Path) -> None:
    assert is_path(str(tmp_path))
    assert is_path(os.curdir + os.sep + "x")
