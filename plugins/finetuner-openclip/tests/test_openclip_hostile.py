"""Folders whose configuration asks open_clip for code or files of others: refused before open_clip sees it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finetuner
from finetuner_core.errors import FinetunerError

HARMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "code of its tokenizer": (
        "text_cfg",
        {"hf_tokenizer_name": "evil", "tokenizer_kwargs": {"trust_remote_code": True}},
        'tokenizer_kwargs with "trust_remote_code"',
    ),
    "words from elsewhere": ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, 'with "bpe_path"'),
    "settings of another type": ("text_cfg", {"tokenizer_kwargs": [1]}, "a value of another type"),
    "a text tower from elsewhere": ("text_cfg", {"hf_model_name": "/elsewhere"}, 'hf_model_name "/elsewhere"'),
    "an image tower of the Hub": (
        "vision_cfg",
        {"timm_model_name": "hf-hub:evil/x"},
        'timm_model_name "hf-hub:evil/x"',
    ),
    "an image tower from elsewhere": (
        "vision_cfg",
        {"timm_model_name": "local-dir:/x"},
        'timm_model_name "local-dir:/x"',
    ),
    "an image tower that is no name": ("vision_cfg", {"timm_model_name": [1]}, "timm_model_name"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = finetuner.build_model("openclip/tiny_vit", pretrained=False).save(tmp_path / "model")
    (folder / "finetuner.json").unlink()
    return folder


@pytest.mark.parametrize("harm", HARMS)
def test_what_leads_elsewhere_is_refused(harm: str, folder: Path) -> None:
    part, settings, expected = HARMS[harm]
    file = folder / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"][part] |= settings
    file.write_text(json.dumps(content))
    with pytest.raises(FinetunerError, match=r"open_clip_config\.json is refused") as error:
        finetuner.build_model(str(folder))
    assert expected in str(error.value)


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_pickle_is_not_read(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    with pytest.raises(FinetunerError, match="cannot be loaded"):
        finetuner.build_model(str(folder))
    assert not (tmp_path / "canary").exists()
