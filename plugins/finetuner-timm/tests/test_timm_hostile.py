"""Folders in timm's format that somebody has made to do harm: refused, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finetuner
from finetuner_core.errors import FinetunerError


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = finetuner.build_model("timm/test_resnet", pretrained=False).save(tmp_path / "model")
    (folder / "finetuner.json").unlink()
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "evil.pth"])
def test_a_pickle_is_not_run(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    with pytest.raises(FinetunerError):
        finetuner.build_model(str(folder))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "../evil"},
        {"architecture": "hf-hub:evil/x"},
        {"architecture": ["test_resnet"]},
        {"model_args": {"checkpoint_path": "/etc/passwd"}},
        {"model_args": {"num_classes": "evil"}},
    ],
)
def test_a_hostile_configuration_is_refused(changes: dict[str, Any], folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(FinetunerError):
        finetuner.build_model(str(folder))


def test_where_weights_are_is_not_the_configurations_to_say(folder: Path) -> None:
    file = folder / "config.json"
    content = json.loads(file.read_text())
    content["pretrained_cfg"] |= {"url": "http://127.0.0.1:9/x", "hf_hub_id": "evil/x", "file": "/etc/passwd"}
    file.write_text(json.dumps(content))
    assert (
        finetuner.build_model(str(folder)).output_dim
        == finetuner.build_model("timm/test_resnet", pretrained=False).output_dim
    )
