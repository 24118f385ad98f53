"""The two halves of the preprocessing together are timm's own evaluation transform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetuner_timm.backbone import preprocess
from finetuner_timm.library import timm

MODELS = [
    "resnet50.a1_in1k",
    "efficientnet_b0.ra_in1k",
    "efficientnet_b4.ra2_in1k",
    "test_vit.r160_in1k",
    "vit_base_patch16_siglip_224.webli",
    "convnext_atto.d2_in1k",
]


def config_of(name: str, **changes: object) -> dict[str, Any]:
    with torch.device("meta"):
        network = timm.create_model(name)
    config: dict[str, Any] = timm.data.resolve_data_config({}, model=network)
    return config | changes


def check(config: dict[str, Any], pictures: list[Image.Image]) -> None:
    ours, theirs = preprocess(config), timm.data.create_transform(**config, is_training=False)
    for picture in pictures:
        prepared = ours.prepare([picture])
        expected = theirs(picture)
        assert prepared[0].dtype == torch.uint8
        assert ours.collate(prepared)["pixels"][0].shape == expected.shape == (3, *ours.image_size)
        assert torch.allclose(ours.collate(prepared)["pixels"][0], expected, rtol=0, atol=1e-6), picture.size


@pytest.mark.parametrize("name", MODELS)
def test_it_is_timms_transform_of_the_models_own_configuration(name: str, pictures: list[Image.Image]) -> None:
    check(config_of(name), pictures)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(96, 96), (97, 97), (96, 127)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
def test_every_crop_mode_is_timms(
    mode: str, size: tuple[int, int], crop_pct: float, pictures: list[Image.Image]
) -> None:
    check(config_of("test_resnet", crop_mode=mode, input_size=(3, *size), crop_pct=crop_pct), pictures)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_every_interpolation_is_timms(interpolation: str, pictures: list[Image.Image]) -> None:
    check(config_of("test_resnet", interpolation=interpolation), pictures)


def test_what_is_prepared_is_resized_and_not_yet_cropped(pictures: list[Image.Image]) -> None:
    prepared = preprocess(config_of("resnet50.a1_in1k")).prepare([pictures[0]])[0]
    height, width = prepared.shape[1:]
    assert height == pytest.approx(235, abs=1)
    assert width / height == pytest.approx(301 / 200, abs=0.01)


def test_a_path_and_a_picture_are_the_same(tmp_path: Path, pictures: list[Image.Image]) -> None:
    pictures[0].save(tmp_path / "picture.png")
    feeding = preprocess(config_of("test_resnet"))
    from_path, from_picture = feeding.prepare([str(tmp_path / "picture.png"), pictures[0]])
    assert np.array_equal(from_path, from_picture)
    assert feeding.length(from_path) == 1


WEIGHTS = Path(__file__).parents[4] / "shared" / "data" / "mobilenetv2_100_imagenet"


def photo(width: int, height: int) -> Image.Image:
    """Shapes of all sizes with hard edges on a smooth ground, under grain."""
    random = np.random.default_rng(width)
    pixels = np.zeros((height, width, 3)) + np.linspace(40, 180, width)[None, :, None]
    for _ in range(150):
        top, left, size = random.integers(height), random.integers(width), int(np.exp(random.uniform(1, 6)))
        pixels[top : top + size, left : left + 2 * size] = random.integers(0, 256, 3)
    return Image.fromarray((pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(1201, 803), (804, 1199)])
def test_a_large_photo_in_a_file_is_seen_as_timm_sees_it(mode: str, shape: tuple[int, int], tmp_path: Path) -> None:
    config = config_of("test_resnet", crop_mode=mode, input_size=(3, 96, 96), crop_pct=0.875)
    path = tmp_path / "a.jpg"
    photo(*shape).save(path, quality=90)
    ours, theirs = preprocess(config), timm.data.create_transform(**config, is_training=False)
    pixels = ours.collate(ours.prepare([path]))["pixels"][0]
    with Image.open(path) as image:
        expected = theirs(image.convert("RGB"))
    assert pixels.shape == expected.shape
    std = torch.tensor(config["std"]).view(-1, 1, 1)
    grey_levels = (pixels - expected) * std * 255
    assert 0 < grey_levels.square().mean() < 2.5  # 44 dB; the photo itself is decoded at a half or a quarter


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the real weights are not here")
@pytest.mark.parametrize("shape", [(2048, 1366), (1801, 2403)])
def test_a_large_photo_keeps_its_vector(shape: tuple[int, int], tmp_path: Path) -> None:
    network = timm.create_model(f"local-dir:{WEIGHTS}", pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_data_config({"input_size": (3, 192, 192)}, model=network)
    ours = preprocess(config)
    path = tmp_path / "a.jpg"
    image = photo(*shape)
    image.save(path, quality=90)
    with Image.open(path) as decoded:
        decoded.load()
        coarse, whole = ours.prepare([path]), ours.prepare([decoded])
    assert not torch.equal(coarse[0], whole[0])
    with torch.inference_mode():
        one, other = (network(ours.collate(prepared)["pixels"]).double() for prepared in (coarse, whole))
    assert torch.cosine_similarity(one, other).item() > 0.999
