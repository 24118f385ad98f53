"""How the plugin is found that opens a cross-encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetuner_core.errors import PluginError, UnknownNameError, WeightsError
from finetuner_core.mining.rerank import load_cross_encoder
from tests.conftest import InstallPlugin

SOURCE = """
from finetuner_core.plugin import WeightsError, hookimpl

@hookimpl
def load_cross_encoder(name):
    import torch
    from finetuner_core.interfaces import CrossEncoder

    class Constant(CrossEncoder):
        def score(self, queries, documents, batch_size):
            return torch.full((len(queries),), {value})

    if name == "broken":
        raise WeightsError("{value} is broken")
    if name == "wrong":
        return "wrong"
    return Constant() if name in {names} else None
"""


def score(name: str) -> float:
    return float(load_cross_encoder(name).score(["a"], ["b"], 1))


@pytest.fixture(autouse=True)
def _plugins(install_plugin: InstallPlugin, tmp_path: Path) -> None:
    folder = str(tmp_path / "folder")
    install_plugin("one", SOURCE.format(value=1.0, names=["own", "two/own", "both"]))
    install_plugin("two", SOURCE.format(value=2.0, names=["own", "both", "org/name", folder]))


@pytest.mark.parametrize(
    ("name", "expected"), [("one/own", 1), ("two/own", 2), ("both", 1), ("org/name", 2), ("one/two/own", 1)]
)
def test_by_namespace_or_whoever_knows_it(name: str, expected: float) -> None:
    assert score(name) == expected


def test_a_folder_is_asked_of_all(tmp_path: Path) -> None:
    assert score(str(tmp_path / "folder")) == 2


def test_it_is_in_evaluation_mode() -> None:
    assert not load_cross_encoder("one/own").training


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("one/gone", UnknownNameError, 'No plugin opens "one/gone" as a cross-encoder'),
        ("gone", UnknownNameError, "pip install finetuner-hf"),
        ("one/broken", WeightsError, "1.0 is broken"),
        ("broken", WeightsError, "1.0 is broken"),
        ("one/wrong", PluginError, 'load_cross_encoder gave "wrong", not a CrossEncoder'),
    ],
)
def test_what_is_not_there(name: str, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        load_cross_encoder(name)
