"""Images as the library's image processors prepare them, step by step."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, DINOv3ViTImageProcessor

from finetuner_core.errors import WeightsError
from finetuner_hf.processors import image_preprocess, read_processor, set_image_size

LIBRARY: Any = AutoImageProcessor
SQUARE: dict[str, object] = {"size": {"height": 32, "width": 24}}
SHORTEST: dict[str, object] = {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 24}}


def write(folder: Path, kind: str, settings: dict[str, object]) -> str:
    content = {"image_processor_type": f"{kind}ImageProcessor", **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", SQUARE),
        ("ViT", {"size": 32, "resample": 3}),
        ("ViT", SQUARE | {"resample": 0, "do_normalize": False}),
        ("ViT", SQUARE | {"do_rescale": False, "image_mean": [100, 110, 120], "image_std": [50, 60, 70]}),
        ("ViT", SQUARE | {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}),
        ("ViT", SQUARE | {"do_rescale": False, "do_normalize": False}),
        ("ViT", SQUARE | {"image_processor_type": "ViTImageProcessorFast"}),
        ("CLIP", SHORTEST),
        ("CLIP", SHORTEST | {"resample": 1, "do_convert_rgb": True}),
        ("CLIP", {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 26}}),
        ("CLIP", {"do_resize": False, "crop_size": 64}),
        ("CLIP", {"size": {"shortest_edge": 37}, "crop_size": 32}),
        ("Bit", {"size": {"shortest_edge": 41}, "crop_size": {"height": 36, "width": 36}}),
        ("DeiT", {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}}),
        ("Beit", {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": 32}),
        ("Siglip", {"size": {"height": 32, "width": 32}, "resample": 2}),
        ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
        ("ConvNext", {"size": {"shortest_edge": 45}, "crop_pct": 0.9}),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 1.0}),
    ],
)
def test_pixels_are_the_processors(
    kind: str, settings: dict[str, object], tmp_path: Path, pictures: list[Image.Image]
) -> None:
    name = write(tmp_path, kind, settings)
    preprocess = pickle.loads(pickle.dumps(image_preprocess(read_processor(name), name)))
    expected = LIBRARY.from_pretrained(name, backend="pil")(pictures, return_tensors="pt")["pixel_values"]
    pixels = preprocess.collate(preprocess.prepare(pictures))["pixels"]
    assert pixels.shape[-2:] == preprocess.image_size
    assert torch.allclose(pixels, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "settings"), [("ViT", SQUARE), ("CLIP", SHORTEST), ("ConvNext", {"size": 32})])
def test_a_large_photo_in_a_file_is_seen_as_the_processor_sees_it(
    kind: str, settings: dict[str, object], tmp_path: Path, pictures: list[Image.Image]
) -> None:
    unscaled = {"do_rescale": False, "do_normalize": False}
    name = write(tmp_path, kind, settings | unscaled)
    path = tmp_path / "a.jpg"
    pictures[3].resize((1281, 853), Image.Resampling.BICUBIC).save(path, quality=90)
    preprocess = image_preprocess(read_processor(name), name)
    with Image.open(path) as image:
        expected = LIBRARY.from_pretrained(name, backend="pil")(image, return_tensors="pt")["pixel_values"]
    grey_levels = preprocess.collate(preprocess.prepare([path]))["pixels"] - expected
    assert 0 < grey_levels.square().mean() < 2  # 45 dB; the photo itself is decoded at an eighth


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("ViT", SQUARE, {"size": {"height": 64, "width": 64}}),
        ("CLIP", {"size": {"shortest_edge": 40}, "crop_size": 32}, {"size": {"shortest_edge": 80}}),
        ("ConvNext", {"size": {"shortest_edge": 32}}, {"size": {"shortest_edge": 64}}),
        ("CLIP", {"do_resize": False, "crop_size": 32}, {"do_resize": False}),
    ],
)
def test_another_size_keeps_the_share_that_is_cropped(
    kind: str, settings: dict[str, object], expected: dict[str, object], tmp_path: Path, pictures: list[Image.Image]
) -> None:
    name = write(tmp_path, kind, settings)
    processor = read_processor(name)
    set_image_size(processor, 64)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert expected.items() <= saved.items()
    assert image_preprocess(processor, name).image_size == (64, 64)
    assert image_preprocess(read_processor(name), name).image_size == (64, 64)


def test_dinov3s_pixels_differ_by_a_grey_level_at_most(tmp_path: Path, pictures: list[Image.Image]) -> None:
    name = write(tmp_path, "DINOv3ViT", {"size": {"height": 32, "width": 32}, "image_std": [0.2, 0.25, 0.5]})
    preprocess = image_preprocess(read_processor(name), name)
    pixels = preprocess.collate(preprocess.prepare(pictures))["pixels"]
    expected = DINOv3ViTImageProcessor.from_pretrained(name)(pictures, return_tensors="pt")["pixel_values"]
    levels = (pixels - expected).abs() * torch.tensor([0.2, 0.25, 0.5]).view(-1, 1, 1) * 255
    assert levels.max() < 1.01
    assert levels.mean() < 0.3


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("CLIP", SHORTEST | {"do_pad": True}, "the step do_pad of its CLIPImageProcessor"),
        ("ViT", SQUARE | {"do_flip_channel_order": True}, "the step do_flip_channel_order of its ViTImageProcessor"),
        ("EfficientNet", SQUARE, "the steps of its EfficientNetImageProcessor"),
        ("ConvNext", {"size": {"shortest_edge": 32}, "do_center_crop": True}, "the step"),
        ("CLIP", {"size": {"shortest_edge": 37}, "do_center_crop": False}, "another one for each image"),
        ("CLIP", {"do_resize": False, "do_center_crop": False}, "another one for each image"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    kind: str, settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    name = write(tmp_path, kind, settings)
    with pytest.raises(WeightsError, match=reason) as caught:
        image_preprocess(read_processor(name), name)
    assert len(str(caught.value).splitlines()) == 2


def test_torchvision_is_not_needed(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torchvision'] = None\n"
    code += "from finetuner_hf.processors import image_preprocess, read_processor\n"
    convnext: dict[str, object] = {"size": {"shortest_edge": 32}}
    for kind, settings in (("DINOv3ViT", SQUARE), ("CLIP", SHORTEST), ("ConvNext", convnext)):
        (tmp_path / kind).mkdir()
        name = write(tmp_path / kind, kind, settings)
        code += f"print(image_preprocess(read_processor({name!r}), 'x').image_size)\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["(32, 24)", "(32, 24)", "(32, 32)"], done.stderr
