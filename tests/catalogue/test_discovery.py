"""A zoo of hostile plugins: whatever one does, the others stay, and one line says what is wrong with it."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from finetuner_core.catalogue import discovery
from finetuner_core.catalogue.discovery import GROUP, Plugin
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.catalogue.table import list_models
from tests.conftest import InstallPlugin

IMPORTS = "from finetuner_core.plugin import BackboneInfo, LossInfo, PoolingInfo, hookimpl\n"
ROW = 'BackboneInfo("tiny", "text-to-text", 64, "CNN", "A small one")'
ACME = ["acme/numbers", "acme/pixels", "acme/both", "acme/letters"]


def listing(body: str) -> str:
    """A plugin whose `list_backbones` does this."""
    return f"{IMPORTS}@hookimpl\ndef list_backbones():\n    {body}\n"


GOOD = listing(f"return [{ROW}]")


def found(namespace: str) -> Plugin:
    (plugin,) = (plugin for plugin in catalogue().plugins if plugin.namespace == namespace)
    return plugin


def rows(namespace: str) -> list[str]:
    return [row.full_name for row in list_models() if row.namespace == namespace]


@pytest.mark.usefixtures("acme")
def test_a_good_plugin_is_loaded(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD, distribution="finetuner-good", version="2.5")
    plugin = found("good")

    assert (plugin.status, plugin.problem, plugin.reason) == ("loaded", "", "")
    assert (plugin.distribution, plugin.version) == ("finetuner-good", "2.5")
    assert rows("good") == ["good/tiny"]
    assert rows("acme") == ACME
    assert [plugin.namespace for plugin in catalogue().plugins] == ["acme", "good", "finetuner"]


ZOO = {
    "raises at import": ("1 / 0", "failed: its import raised ZeroDivisionError: division by zero"),
    "says it on many lines": ("raise ValueError('one\\n\\n two')", "failed: its import raised ValueError: one two"),
    "says nothing": ("raise RuntimeError", "failed: its import raised RuntimeError"),
    "misses a package": (
        "import surely_not_there",
        "failed: its import raised ModuleNotFoundError: No module named 'surely_not_there'",
    ),
    "does not parse": ("def", "failed: its import raised SyntaxError: invalid syntax (*"),
    "exits at import": ("import sys; sys.exit('bye')", "failed: its import raised SystemExit: bye"),
    "exits silently": ("raise SystemExit", "failed: its import raised SystemExit"),
    "lists a number": (listing("return 5"), 'refused: it lists "5" where an iterable of BackboneInfo is expected'),
    "lists rubbish": (
        listing(f"return [{ROW}, ('tiny', 64)]"),
        "refused: it lists \"('tiny', 64)\" where a BackboneInfo is expected",
    ),
    "lists a text": (listing("return 'tiny'"), 'refused: it lists "t" where a BackboneInfo is expected'),
    "lists a row twice": (listing(f"return [{ROW}, {ROW}]"), 'refused: it lists "tiny" twice'),
    "lists the wrong kind": (
        IMPORTS + f"@hookimpl\ndef list_losses():\n    return [{ROW}]\n",
        "refused: it lists \"BackboneInfo(name='tiny', *...*\" where a LossInfo is expected",
    ),
    "lists what cannot be shown": (
        listing("return [BackboneInfo('tiny', 'dance', 64, 'CNN', '')]"),
        'failed: listing what it offers raised OptionError: tiny: task is "dance"; allowed are *',
    ),
    "raises in a generator": (
        listing(f"yield {ROW}; raise OSError('no disk')"),
        "failed: listing what it offers raised OSError: no disk",
    ),
    "exits when listed": (
        listing("raise SystemExit(3)"),
        "failed: listing what it offers raised SystemExit: 3",
    ),
    "cannot be printed": (
        IMPORTS
        + "class Row:\n    def __str__(self):\n        raise KeyError('str')\n"
        + "@hookimpl\ndef list_poolings():\n    return [Row()]\n",
        "failed: listing what it offers raised KeyError: 'str'",
    ),
    "misspells a hook": (
        IMPORTS + "@hookimpl\ndef list_backbone():\n    return []\n",
        'refused: there is no hook "list_backbone". Did you mean "list_backbones"*',
    ),
    "invents a hook": (
        GOOD + "@hookimpl\ndef zzz_qqq():\n    pass\n",
        'refused: there is no hook "zzz_qqq".',
    ),
    "has a default": (
        IMPORTS + "@hookimpl\ndef find_backbone(name=''):\n    pass\n",
        "refused: its find_backbone declares \"name=''\"; a hook's parameters are plain names, *",
    ),
    "has a keyword-only parameter": (
        IMPORTS + "@hookimpl\ndef find_backbone(*, name):\n    pass\n",
        'refused: its find_backbone declares "name"; a hook\'s parameters are plain names, *',
    ),
    "takes anything": (
        IMPORTS + "@hookimpl\ndef load_backbone(*args):\n    pass\n",
        'refused: its load_backbone declares "\\*args"; a hook\'s parameters are plain names, *',
    ),
    "takes any name": (
        IMPORTS + "@hookimpl\ndef load_backbone(**kwargs):\n    pass\n",
        'refused: its load_backbone declares "\\*\\*kwargs"; a hook\'s parameters are plain names, *',
    ),
    "invents a parameter": (
        IMPORTS + "@hookimpl\ndef find_backbone(title):\n    pass\n",
        "refused: *'find_backbone'*title*",
    ),
    "has no hooks": ("x = 1", "refused: it implements no hook; mark its functions with @hookimpl of *"),
    "forgot to mark its hook": (
        "def list_backbones():\n    return []\n",
        "refused: it implements no hook; mark its functions with @hookimpl of finetuner_core.plugin",
    ),
}


def matches(text: str, pattern: str) -> bool:
    r"""Whether `text` is `pattern`, in which `*` stands for anything and `\*` for itself."""
    position = 0
    parts = [part.replace("\0", "*") for part in pattern.replace("\\*", "\0").split("*")]
    if not (text.startswith(parts[0]) and text.endswith(parts[-1])):
        return False
    for part in parts:
        position = text.find(part, position) + len(part)
        if position < len(part):
            return False
    return len(parts) > 1 or text == parts[0]


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(("source", "says"), ZOO.values(), ids=ZOO)
def test_a_hostile_plugin_harms_nobody_else(install_plugin: InstallPlugin, source: str, says: str) -> None:
    install_plugin("hostile", source, distribution="finetuner-hostile", version="2.5")
    plugin = found("hostile")

    assert rows("acme") == ACME
    assert rows("hostile") == []
    assert plugin.hooks is None
    assert plugin.status == says.partition(":")[0]
    assert catalogue().problems == [plugin.problem]
    assert matches(plugin.problem, f'Plugin "hostile" (finetuner-hostile 2.5) {says}'), plugin.problem
    assert plugin.problem.isprintable(), "it is one line"


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("body", ["return None", "return []", "return iter(())"])
def test_a_plugin_may_list_nothing(install_plugin: InstallPlugin, body: str) -> None:
    install_plugin("empty", listing(body))

    assert found("empty").status == "loaded"
    assert catalogue().problems == []
    assert rows("acme") == ACME


def test_a_plugin_cannot_list_in_the_name_of_another(install_plugin: InstallPlugin) -> None:
    install_plugin("liar", listing('return [BackboneInfo("x", "all", 1, "", "", namespace="acme")]'))
    assert [row.full_name for row in list_models()] == ["liar/x"]


@pytest.mark.usefixtures("acme")
def test_what_a_plugin_prints_does_not_end_up_in_the_output(
    install_plugin: InstallPlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("loud", "print('at import')\n" + listing(f"print('when listed'); return [{ROW}]"))

    assert rows("loud") == ["loud/tiny"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "at import\nwhen listed\n"


def test_ctrl_c_is_no_failure_of_a_plugin(install_plugin: InstallPlugin) -> None:
    install_plugin("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        catalogue()


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("namespace", "says"),
    [
        ("Shouting", 'refused: "Shouting" cannot be a namespace; use lower-case letters, digits, - and _'),
        ("a.b", 'refused: "a.b" cannot be a namespace; use lower-case letters, digits, - and _'),
        ("finetuner", 'refused: "finetuner" is the namespace of the core\'s own poolings and losses; choose another'),
    ],
)
def test_a_namespace_that_cannot_be_is_refused_unimported(
    install_plugin: InstallPlugin, tmp_path: Path, namespace: str, says: str
) -> None:
    install_plugin(namespace, marking(tmp_path), distribution="finetuner-odd")

    assert catalogue().problems == [f'Plugin "{namespace}" (finetuner-odd 1.0) {says}']
    assert not (tmp_path / "imported").exists()
    assert rows("acme") == ACME
    assert catalogue().find_loss("triplet")[0].distribution == "finetuner-core"


@pytest.mark.usefixtures("acme")
def test_a_namespace_of_two_belongs_to_neither(install_plugin: InstallPlugin) -> None:
    install_plugin("twin", GOOD, distribution="finetuner-one")
    install_plugin("twin", GOOD, distribution="finetuner-two")

    assert rows("twin") == []
    assert rows("acme") == ACME
    end = "claims the same namespace; uninstall one of them"
    assert catalogue().problems == [
        f'Plugin "twin" (finetuner-one 1.0) refused: finetuner-two {end}',
        f'Plugin "twin" (finetuner-two 1.0) refused: finetuner-one {end}',
    ]


def marking(folder: Path) -> str:
    """A good plugin that leaves a mark where it is imported."""
    return f"from pathlib import Path\nPath({str(folder / 'imported')!r}).touch()\n" + GOOD


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("group", [GROUP, "finetuner.plugins.v2", "finetuner.plugins.v0"])
def test_a_plugin_for_another_api_is_refused_unimported(
    install_plugin: InstallPlugin, tmp_path: Path, group: str
) -> None:
    install_plugin("other", marking(tmp_path), group=group)
    plugin = found("other")

    assert rows("acme") == ACME
    if group == GROUP:
        assert plugin.status == "loaded"
        assert (tmp_path / "imported").exists()
    else:
        version = group.rpartition(".")[2]
        reason = f"refused: it was built for plugin API {version}, and this core has v1"
        assert catalogue().problems == [f'Plugin "other" (finetuner-other 1.0) {reason}']
        assert not (tmp_path / "imported").exists()


def test_a_plugin_may_support_another_api_beside_this_one(install_plugin: InstallPlugin, tmp_path: Path) -> None:
    install_plugin("both", GOOD)
    (entries,) = (tmp_path / "site" / "finetuner-both").glob("*.dist-info/entry_points.txt")
    entries.write_text(entries.read_text() + "[finetuner.plugins.v2]\nboth = for_the_next_core\n")

    assert rows("both") == ["both/tiny"]
    assert catalogue().problems == []


def test_a_distribution_without_metadata_is_named_by_its_module(
    install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an interrupted uninstall leaves it."""
    install_plugin("rest", "1 / 0")
    (metadata,) = (tmp_path / "site" / "finetuner-rest").glob("*.dist-info/METADATA")
    metadata.unlink()
    # The fixture that hides installed plugins reads the metadata too.
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == "rest"]
    monkeypatch.setattr(discovery, "_entries", lambda: iter(entries))

    assert catalogue().problems == [
        'Plugin "rest" (plugin_finetuner_rest ?) failed: its import raised ZeroDivisionError: division by zero'
    ]


def test_an_entry_point_without_a_distribution_is_named_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("lonely", "surely_not_there.plugin", GROUP)
    monkeypatch.setattr(discovery, "_entries", lambda: iter([entry]))
    assert catalogue().problems == [
        'Plugin "lonely" (surely_not_there.plugin ?) failed: its import raised '
        "ModuleNotFoundError: No module named 'surely_not_there'"
    ]


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("disabled", ["off", "other, off ,acme-2"])
def test_a_disabled_plugin_is_not_imported_and_no_problem(
    install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: str
) -> None:
    monkeypatch.setenv("FINETUNER_DISABLE_PLUGINS", disabled)
    install_plugin("off", marking(tmp_path))

    assert found("off").status == "disabled"
    assert not (tmp_path / "imported").exists()
    assert catalogue().problems == []
    assert rows("off") == []
    assert rows("acme") == ACME


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("1 / 0", ZeroDivisionError, "division"),
        ("raise SystemExit('bye')", SystemExit, "bye"),
        (listing("raise OSError('disk')"), OSError, "disk"),
        (listing("return 5"), Exception, 'it lists "5"'),
    ],
)
def test_for_its_author_a_plugins_exception_goes_through(
    install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch, source: str, error: type[BaseException], says: str
) -> None:
    install_plugin("mine", source)
    monkeypatch.setenv("FINETUNER_STRICT", "1")
    with pytest.raises(error, match=says):
        catalogue()

    monkeypatch.setenv("FINETUNER_STRICT", "0")
    assert found("mine").status in ("failed", "refused")


@pytest.mark.parametrize(("submodules", "heavy"), [(98, ()), (99, ("bulk",))])
def test_a_heavy_import_is_measured(
    install_plugin: InstallPlugin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    submodules: int,
    heavy: tuple[str, ...],
) -> None:
    package = tmp_path / "heavy" / "bulk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("".join(f"from bulk import m{n}\n" for n in range(submodules)))
    for n in range(submodules):
        (package / f"m{n}.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    install_plugin("big", "import bulk\n" + GOOD)

    try:
        assert found("big").heavy_imports == heavy
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bulk"]:
            del sys.modules[name]
    assert found("big").status == "loaded"
    assert found("big").import_seconds > 0
