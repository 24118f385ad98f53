"""What a model emits, against timm itself and against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import finetuner
from finetuner_core.errors import OptionError
from finetuner_timm.library import timm

TINY = sorted(timm.list_models("test_*"))
MAPS = ["test_resnet", "test_efficientnet", "test_efficientnet_gn"]


def built(name: str, pooling: str | None = None, **options: Any) -> finetuner.EmbeddingModel:
    torch.manual_seed(0)
    model = finetuner.build_model(f"timm/{name}", pretrained=False, pooling=pooling, **options)
    _unsettle(model)
    return model


def _unsettle(model: torch.nn.Module) -> None:
    """Gives every norm something to do: as timm initialises them, some layers are zero and most norms do nothing."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * (0.5 if name.endswith("running_var") else 0.1))


def in_timm(model: finetuner.EmbeddingModel, name: str, **options: Any) -> torch.nn.Module:
    """The same weights in a network that timm itself has made."""
    network: torch.nn.Module = timm.create_model(name, num_classes=0, **options).eval()
    network.load_state_dict(model.encoder("image").extractor.get_submodule("network").state_dict())
    return network


def pixels(model: finetuner.EmbeddingModel, images: list[Image.Image]) -> torch.Tensor:
    preprocess = model.preprocess("image")
    return preprocess.collate(preprocess.prepare(images))["pixels"]


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


@pytest.mark.parametrize("name", TINY)
def test_native_is_timms_own_embedding(name: str, pictures: list[Image.Image]) -> None:
    model = built(name)
    with torch.inference_mode():
        expected = in_timm(model, name)(pixels(model, pictures[:3])).numpy()
    assert expected.shape == (3, model.output_dim)
    assert np.abs(model.encode(pictures[:3]) - unit(expected)).max() < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_takes_part_in_the_native_embedding(name: str, pictures: list[Image.Image]) -> None:
    model = built(name)
    prepared = model.preprocess("image").prepare(pictures[:2])
    model("image", prepared)[:, 0].sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_mean_and_max_are_those_of_a_loop_over_the_map(name: str, pooling: str, pictures: list[Image.Image]) -> None:
    model = built(name, pooling)
    with torch.inference_mode():
        network = in_timm(model, name)
        maps = network.forward_features(pixels(model, pictures[:3])).numpy()  # type: ignore[operator]
    expected = np.zeros(maps.shape[:2])
    for item, channel in np.ndindex(expected.shape):
        values = [float(maps[item, channel, y, x]) for y in range(maps.shape[2]) for x in range(maps.shape[3])]
        expected[item, channel] = sum(values) / len(values) if pooling == "mean" else max(values)
    assert len(values) > 1
    assert np.abs(model.encode(pictures[:3]) - unit(expected)).max() < 1e-5


@pytest.mark.parametrize("name", MAPS)
def test_every_parameter_takes_part_in_the_mean_of_the_map(name: str, pictures: list[Image.Image]) -> None:
    model = built(name, "mean")
    model("image", model.preprocess("image").prepare(pictures[:2]))[:, 0].sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", sorted({"test_vit", "test_convnext", "test_nfnet"}))
def test_where_more_than_a_map_makes_the_embedding_there_is_only_native(name: str) -> None:
    with pytest.raises(OptionError, match='does not support the pooling "mean"'):
        built(name, "mean")


def test_the_batch_does_not_change_an_embedding(pictures: list[Image.Image]) -> None:
    model = built("test_resnet")
    together = model.encode(pictures)
    one_by_one = np.concatenate([model.encode([picture]) for picture in pictures])
    assert np.abs(together - one_by_one).max() < 1e-5


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_another_image_size_is_what_the_network_then_sees(name: str, pictures: list[Image.Image]) -> None:
    model = built(name, image_size=96)
    assert pixels(model, pictures[:2]).shape == (2, 3, 96, 96)
    size = {} if name == "test_resnet" else {"img_size": 96}
    with torch.inference_mode():
        expected = in_timm(model, name, **size)(pixels(model, pictures[:2])).numpy()
    assert np.abs(model.encode(pictures[:2]) - unit(expected)).max() < 1e-5


@pytest.mark.parametrize(("name", "size"), [("test_vit", 100), ("test_maxvit", 100), ("test_vit", 8)])
def test_an_image_size_that_the_network_cannot_see_is_refused(name: str, size: int) -> None:
    with pytest.raises(OptionError, match=f"timm/{name} cannot see images of image_size={size}: .*\n.*multiple of 32"):
        built(name, image_size=size)
