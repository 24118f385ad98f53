"""Folders in the format of transformers that somebody has made to do harm: refused, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig

import finetuner
from finetuner_core.errors import FinetunerError

CONFIG = BertConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


def config(**changes: object) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


ZOO: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a kernel of another repository": (config(attn_implementation="evil/kernel"), 'attention "evil/kernel"'),
    "an adapter": (text("adapter_config.json", '{"base_model_name_or_path": "evil/x"}'), "holds an adapter of PEFT"),
    "shards of another folder": (
        text("model.safetensors.index.json", '{"weight_map": {"a": "../x.safetensors"}}'),
        "no file of it",
    ),
    "modules of another folder": (
        text(
            "modules.json",
            json.dumps(
                [
                    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                    {"idx": 1, "path": "../outside", "type": "sentence_transformers.models.Pooling"},
                ]
            ),
        ),
        "",
    ),
    "a gigabyte of JSON": (lambda folder: __import__("os").truncate(folder / "config.json", 1 << 30), "is refused"),
    "other shapes": (config(hidden_size=64), "cannot be loaded"),
}


@pytest.mark.parametrize("animal", ZOO)
def test_a_hostile_folder_is_refused(animal: str, tmp_path: Path, save_text_model: Callable[..., Any]) -> None:
    folder = tmp_path / "bert"
    save_text_model(folder, CONFIG)
    harm, expected = ZOO[animal]
    harm(folder)
    with pytest.raises(FinetunerError) as error:
        finetuner.build_model(str(folder), pooling="native" if "modules" in animal else None)
    assert expected in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_not_run(name: str, how: str, tmp_path: Path, save_text_model: Callable[..., Any]) -> None:
    folder = tmp_path / "bert"
    save_text_model(folder, CONFIG)
    (folder / "model.safetensors").unlink()
    if how == "pickle":
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    else:
        torch.save({"a": Bomb(tmp_path / "canary")}, folder / name)
    with pytest.raises(FinetunerError):
        finetuner.build_model(str(folder))
    assert not (tmp_path / "canary").exists()


def test_code_of_the_folder_is_not_run(tmp_path: Path, save_text_model: Callable[..., Any]) -> None:
    folder = tmp_path / "bert"
    save_text_model(folder, CONFIG)
    config(model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(FinetunerError, match="Python code of its own"):
        finetuner.build_model(str(folder))
    assert not (tmp_path / "canary").exists()
