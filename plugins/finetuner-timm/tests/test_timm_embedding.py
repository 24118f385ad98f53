"""What a model emits, against timm itself and against loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import finetuner
from finetuner_core.errors import OptionError
from finetuner_timm.library import timm
from finetuner_timm.memory import memory_format_of

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
    """The same weights in a network that timm itself has made, adding products in the same order."""
    network: torch.nn.Module = timm.create_model(name, num_classes=0, **options).eval()
    network.load_state_dict(model.encoder("image").extractor.get_submodule("network").state_dict())
    return network.to(memory_format=memory_format_of(network))


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


def test_cls_is_the_class_token_that_timm_itself_takes(pictures: list[Image.Image]) -> None:
    model = built("test_vit", "cls")
    with torch.inference_mode():
        expected = in_timm(model, "test_vit")(pixels(model, pictures[:3])).numpy()
    assert np.abs(model.encode(pictures[:3]) - unit(expected)).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "max", "gem", "attention"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_mambaout"])
def test_poolings_of_tokens_are_as_wide_as_the_embedding(name: str, pooling: str, pictures: list[Image.Image]) -> None:
    model = built(name, pooling)
    assert model.encode(pictures[:2]).shape == (2, model.info.output_dim)


def test_prefix_tokens_are_no_parts_of_the_image(pictures: list[Image.Image]) -> None:
    model = built("test_vit", "mean")
    with torch.inference_mode():
        sequence = in_timm(model, "test_vit").forward_features(pixels(model, pictures[:2]))  # type: ignore[operator]
    assert sequence.shape[1] == 1 + 10 * 10
    assert np.abs(model.encode(pictures[:2]) - unit(sequence[:, 1:].mean(1).numpy())).max() < 1e-5


def test_a_map_with_its_channels_last_is_read_as_one(pictures: list[Image.Image]) -> None:
    model = built("swin_tiny_patch4_window7_224", "mean", image_size=64)
    with torch.inference_mode():
        network = in_timm(model, "swin_tiny_patch4_window7_224", img_size=64)
        maps = network.forward_features(pixels(model, pictures[:2]))  # type: ignore[operator]
    assert maps.shape == (2, 2, 2, 768)
    expected = np.mean([maps[:, y, x].numpy() for y in range(2) for x in range(2)], axis=0)
    assert np.abs(model.encode(pictures[:2]) - unit(expected)).max() < 1e-5


def test_what_timms_pooling_alone_needs_is_kept_but_not_trained(tmp_path: Path, pictures: list[Image.Image]) -> None:
    """The pooling of timm is here attention, with weights; a mean stands in its place, and the folder opens in timm."""
    model = built("test_vit3", "mean")
    assert not any("attn_pool" in name for name, _ in model.named_parameters())
    model.save(tmp_path / "model")
    assert np.array_equal(finetuner.load(tmp_path / "model").encode(pictures[:1]), model.encode(pictures[:1]))
    timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("cait_xxs24_224", "mean"),  # past its last layers goes the class token alone
        ("xcit_nano_12_p8_224", "max"),
        ("crossvit_9_240", "gem"),  # two sequences
        ("vgg11", "attention"),  # a trained layer over all positions at once
        ("test_resnet", "cls"),
        ("test_vit", "last"),
    ],
)
def test_a_pooling_that_an_architecture_cannot_have_is_refused(name: str, pooling: str) -> None:
    with pytest.raises(OptionError, match=f'{name} does not support the pooling "{pooling}".*\nIt supports native'):
        built(name, pooling)


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


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (nn.Conv2d(3, 8, 3), torch.channels_last),
        (nn.Conv2d(32, 8, 1, stride=2), torch.channels_last),
        (nn.Conv2d(8, 8, 3, groups=8), torch.channels_last),
        (nn.Conv2d(8, 16, 3, groups=8), torch.contiguous_format),
        (nn.Conv2d(8, 8, 1, groups=8), torch.contiguous_format),
        (nn.Conv2d(3, 8, 1, stride=2), torch.contiguous_format),
        (nn.Conv3d(1, 8, 3), torch.contiguous_format),
    ],
)
def test_channels_lie_side_by_side_where_torch_bears_it(convolution: nn.Module, expected: torch.memory_format) -> None:
    assert memory_format_of(nn.Sequential(nn.ReLU(), convolution)) is expected
