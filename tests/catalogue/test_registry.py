"""What plugins offer together, and what becomes of a hook that fails."""

from __future__ import annotations

import pytest

from finetuner_core.catalogue.discovery import Plugin
from finetuner_core.catalogue.registry import Catalogue, call, catalogue
from finetuner_core.errors import FinetunerError, PluginError, UnknownNameError, WeightsError
from finetuner_core.values import TEXT_POOLINGS, BackboneInfo
from tests.conftest import InstallPlugin

PARTS = """
from finetuner_core.plugin import LossInfo, Option, PoolingInfo, WeightsError, hookimpl

@hookimpl
def list_poolings():
    return [PoolingInfo("first", "The first token")]

@hookimpl
def build_pooling(info, dim):
    return info.name, dim

@hookimpl
def list_losses():
    return [LossInfo("spread", "Apart", (Option("weight", "float", default=1.0),)), LossInfo("triplet", "Ours")]

@hookimpl
def build_loss(options, info):
    return info.name, options

@hookimpl
def find_backbone(name):
    if name == "divide":
        1 / 0
    if name == "exit":
        raise SystemExit(4)
    if name == "ours":
        raise WeightsError("Ask for access.")

@hookimpl
def find_backbone_names(pattern):
    yield pattern
    if pattern == "late":
        raise OSError("too late")
"""


@pytest.fixture
def parts(install_plugin: InstallPlugin) -> Plugin:
    """A plugin with a pooling, two losses, one named as the core's, and hooks that fail when they are asked to."""
    install_plugin("parts", PARTS)
    return catalogue().plugins[0]


def test_a_hook_is_given_the_parameters_that_it_names(parts: Plugin) -> None:
    info, options = parts.losses[0], {"weight": 0.5}
    assert call(parts, "build_loss", info=info, dim=3, options=options) == ("spread", options)
    assert call(parts, "build_pooling", info=parts.poolings[0], dim=3, options={}) == ("first", 3)


def test_a_hook_that_is_not_implemented_gives_none(parts: Plugin) -> None:
    assert call(parts, "load_backbone", info=None, pretrained=False, options={}) is None


@pytest.mark.parametrize(
    ("hook", "arguments", "what"),
    [
        ("find_backbone", {"name": "divide"}, "find_backbone: ZeroDivisionError: division by zero"),
        ("find_backbone", {"name": "exit"}, "find_backbone: SystemExit: 4"),
        ("find_backbone_names", {"pattern": "late"}, "find_backbone_names: OSError: too late"),
    ],
)
def test_what_a_hook_raises_is_the_plugins_failure(
    parts: Plugin, monkeypatch: pytest.MonkeyPatch, hook: str, arguments: dict[str, object], what: str
) -> None:
    with pytest.raises(PluginError) as caught:
        call(parts, hook, **arguments)
    assert str(caught.value) == (
        f'Plugin "parts" (finetuner-parts 1.0) failed in {what}\nSet FINETUNER_STRICT=1 to see where.'
    )
    cause = caught.value.__cause__
    assert cause is not None

    monkeypatch.setenv("FINETUNER_STRICT", "1")
    with pytest.raises(type(cause)):
        call(parts, hook, **arguments)


def test_an_error_meant_for_a_person_reaches_them_as_it_is(parts: Plugin) -> None:
    with pytest.raises(WeightsError, match=r"^Ask for access\.$"):
        call(parts, "find_backbone", name="ours")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {},
            'Plugin "broken" (finetuner-broken 3.1) failed: its import raised ZeroDivisionError: division by zero\n'
            'Run "finetuner doctor" for details, or mend it with: '
            "pip install --upgrade --force-reinstall finetuner-broken",
        ),
        (
            {"FINETUNER_DISABLE_PLUGINS": "broken"},
            'Plugin "broken" (finetuner-broken 3.1) is disabled.\nIt is switched off by FINETUNER_DISABLE_PLUGINS.',
        ),
    ],
)
def test_a_plugin_that_is_not_there_says_why_and_the_cure(
    install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    install_plugin("broken", "1 / 0", version="3.1")

    with pytest.raises(PluginError) as caught:
        call(catalogue().plugins[0], "find_backbone", name="x")
    assert str(caught.value) == says


def row(namespace: str, name: str, task: str) -> BackboneInfo:
    return BackboneInfo(name, task, 8, "toy", "", namespace=namespace)


def test_rows_stand_by_task_and_then_as_they_are_listed() -> None:
    both = Catalogue(
        (
            Plugin("a", "", "", backbones=(row("a", "z", "text-to-text"), row("a", "y", "image-to-image"))),
            Plugin("b", "", "", backbones=(row("b", "a", "text-to-text"), row("b", "x", "all"))),
        )
    )

    assert [r.full_name for r in both.list_backbones()] == ["b/x", "a/y", "a/z", "b/a"]
    assert [r.full_name for r in both.list_backbones("text-to-text")] == ["a/z", "b/a"]
    assert both.list_backbones("text-to-image") == []
    assert both.plugin_of(both.list_backbones()[0]).namespace == "b"


@pytest.mark.parametrize(
    ("task", "near"), [("text-to-txt", ' Did you mean "text-to-text"'), ("dance", ""), ("", "")], ids=repr
)
def test_an_unknown_task_is_an_error_with_the_tasks(task: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue().list_backbones(task)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f'There is no task "{task}".{near}')
    assert second == "Tasks: all, image-to-image, text-to-image, text-to-text."


def test_the_cores_own_poolings_and_losses_are_there() -> None:
    (core,) = catalogue().plugins
    assert [pooling.name for pooling in core.poolings] == ["native", *TEXT_POOLINGS]
    assert [loss.name for loss in core.losses] == [
        "infonce",
        "triplet",
        "contrastive",
        "siglip",
        "cosent",
        "cosine",
        "margin_mse",
        "kl",
    ]


@pytest.mark.parametrize("name", ["first", "parts/first"])
def test_a_pooling_is_found_by_its_bare_and_its_full_name(parts: Plugin, name: str) -> None:
    assert catalogue().find_pooling(name) == (parts, parts.poolings[0])


def test_a_loss_of_two_plugins_has_to_be_named_in_full(parts: Plugin) -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue().find_loss("triplet")
    assert str(caught.value) == (
        'The loss "triplet" is listed by more than one plugin.\nWrite parts/triplet or finetuner/triplet.'
    )
    assert catalogue().find_loss("parts/triplet")[0] is parts
    assert catalogue().find_loss("finetuner/triplet")[0].distribution == "finetuner-core"


@pytest.mark.usefixtures("parts")
def test_an_unknown_part_is_an_error_with_what_there_is() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue().find_loss("tripled")
    assert str(caught.value) == (
        'There is no loss "tripled". Did you mean "triplet"?\n'
        "There are: spread, triplet, infonce, triplet, contrastive, siglip, cosent, cosine, margin_mse, kl. "
        "More come with: pip install finetuner-metric-learning"
    )
    with pytest.raises(UnknownNameError) as caught:
        catalogue().find_pooling("zzz")
    assert (
        str(caught.value)
        == 'There is no pooling "zzz".\nThere are: first, native, mean, max, gem, attention, cls, last, weighted_mean.'
    )


def test_discovery_happens_once_a_process(install_plugin: InstallPlugin) -> None:
    before = catalogue()
    assert catalogue() is before
    install_plugin("late", PARTS)  # which clears the cache, as an installation in a running process would not
    assert catalogue() is not before


def test_every_error_of_the_catalogue_is_one_of_ours() -> None:
    assert issubclass(PluginError, FinetunerError)
    assert issubclass(UnknownNameError, FinetunerError)
    assert issubclass(UnknownNameError, LookupError)
