"""Saved models open in timm and in Finetuner, and whose folder is whose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import finetuner
from finetuner_core.errors import UnknownNameError, WeightsError
from finetuner_timm import plugin
from finetuner_timm.library import timm


def built(name: str, **options: Any) -> finetuner.EmbeddingModel:
    torch.manual_seed(1)
    return finetuner.build_model(f"timm/{name}", pretrained=False, **options)


def embedded_by_timm(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    with torch.inference_mode():
        vectors = network(torch.stack([transform(picture) for picture in pictures]))
    return torch.nn.functional.normalize(vectors).numpy()


@pytest.mark.parametrize("options", [{}, {"image_size": 96}], ids=["own size", "size 96"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_vit4"])
def test_a_saved_model_opens_the_same_in_finetuner_and_in_timm(
    name: str, options: dict[str, Any], tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = built(name, **options)
    model.save(tmp_path / "model")
    expected = model.encode(pictures)
    opened = finetuner.load(tmp_path / "model")
    assert np.array_equal(opened.encode(pictures), expected)
    assert np.abs(embedded_by_timm(tmp_path / "model", pictures) - expected).max() < 1e-5
    opened.save(tmp_path / "again")
    assert np.array_equal(finetuner.load(tmp_path / "again").encode(pictures), expected)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_saved_model_keeps_its_pooling(pooling: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    model = built("test_resnet", pooling=pooling)
    model.save(tmp_path / "model")
    opened = finetuner.load(tmp_path / "model")
    assert opened.pooling == pooling
    assert np.array_equal(opened.encode(pictures), model.encode(pictures))


def test_a_saved_model_is_json_and_safetensors_without_a_classifier(tmp_path: Path) -> None:
    built("test_resnet").save(tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert names == {"README.md", "config.json", "finetuner.json", "model.safetensors"}
    network = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert network.num_classes == 0
    assert not any(name.startswith("fc") for name, _ in network.named_parameters())


def test_a_folder_that_timm_has_saved_opens(tmp_path: Path, pictures: list[Image.Image]) -> None:
    torch.manual_seed(2)
    network = timm.create_model("test_vit", num_classes=7).eval()
    timm.models.save_for_hf(network, tmp_path / "theirs", safe_serialization=True)
    model = finetuner.build_model(str(tmp_path / "theirs"))
    assert (model.info.output_dim, model.info.architecture) == (64, "VisionTransformer")
    network.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(network(torch.stack([transform(p) for p in pictures]))).numpy()
    assert np.abs(model.encode(pictures) - expected).max() < 1e-5
    larger = finetuner.build_model(str(tmp_path / "theirs"), image_size=192)
    assert larger.preprocess("image").image_size == (192, 192)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", '{"model_type": "bert"}', '{"architecture": "BertModel"}', '{"format": "finetuner-mlp"}'],
)
def test_a_folder_of_another_format_is_not_claimed(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert plugin.find_backbone(str(tmp_path)) is None


def test_a_folder_never_shadows_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_resnet").mkdir()
    (tmp_path / "test_resnet" / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    monkeypatch.chdir(tmp_path)
    assert built("test_resnet").output_dim == 96
    with pytest.raises(UnknownNameError, match='knows no model "mine"'):
        built("mine")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, damage: str) -> None:
    built("test_resnet").save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"The weights in .*model cannot be loaded: .+\nMend the folder"):
        finetuner.load(tmp_path / "model")
