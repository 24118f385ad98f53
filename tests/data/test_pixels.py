from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetuner_core.data.pixels import PixelPreprocess

MEAN, STD = (0.1, 0.4, 0.7), (0.5, 0.25, 2.0)


def preprocess(size: tuple[int, int], offset: Callable[[int], int] = lambda excess: excess // 2) -> PixelPreprocess:
    return PixelPreprocess(resize=lambda image: image, image_size=size, mean=MEAN, std=STD, offset=offset)


def naive(image: np.ndarray, size: tuple[int, int], offset: Callable[[int], int]) -> np.ndarray:
    """Pixel by pixel: where in the image (H, W, 3) each one of the result comes from, black where from outside."""
    result = np.zeros((3, *size))
    starts = []
    for have, want in zip(image.shape, size, strict=False):
        starts.append(offset(have - want) if have >= want else -((want - have) // 2))
    for y in range(size[0]):
        for x in range(size[1]):
            from_y, from_x = y + starts[0], x + starts[1]
            inside = 0 <= from_y < image.shape[0] and 0 <= from_x < image.shape[1]
            for channel in range(3):
                value = image[from_y, from_x, channel] if inside else 0
                result[channel, y, x] = (value / 255 - MEAN[channel]) / STD[channel]
    return result


@pytest.mark.parametrize("offset", [lambda n: n // 2, lambda n: math.ceil(n / 2), lambda n: round(n / 2), lambda n: n])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 10), (8, 11), (3, 12), (11, 4), (1, 1), (5, 8), (6, 8)])
def test_crops_pads_and_normalises_like_a_naive_loop(shape: tuple[int, int], offset: Callable[[int], int]) -> None:
    size = (6, 9)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    feeding = preprocess(size, offset)
    prepared = feeding.prepare([Image.fromarray(image)])
    assert np.array_equal(prepared[0].numpy(), image.transpose(2, 0, 1))
    pixels = feeding.collate(prepared)["pixels"]
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels[0].numpy(), naive(image, size, offset), rtol=1e-5, atol=1e-6)


def test_a_batch_of_different_sizes_keeps_its_order() -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((4, 4), (5, 9), (2, 4), (8, 3))]
    feeding = preprocess((4, 4))
    pixels = feeding.collate(feeding.prepare([Image.fromarray(image) for image in images]))["pixels"]
    expected = np.stack([naive(image, (4, 4), lambda excess: excess // 2) for image in images])
    np.testing.assert_allclose(pixels.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_prepares_files_resized(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (5, 3), 77).save(path)
    feeding = PixelPreprocess(
        resize=lambda image: image.resize((8, 6)), image_size=(4, 4), mean=MEAN, std=STD, offset=lambda excess: 0
    )
    (prepared,) = feeding.prepare([path])
    assert (prepared.dtype, prepared.shape) == (torch.uint8, (3, 6, 8))
    assert bool((prepared == 77).all())
    assert prepared.is_contiguous()
    assert feeding.length(prepared) == 1


@pytest.mark.parametrize(("shape", "sides"), [((1, 30_000), (6, 384)), ((30_000, 2), (384, 6)), ((2, 128), (6, 384))])
def test_of_a_strip_the_middle_is_enlarged_and_not_all_of_it(shape: tuple[int, int], sides: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    image[shape[0] // 2, shape[1] // 2] = 200

    def resize(image: Image.Image) -> Image.Image:
        factor = 6 // min(image.size)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)

    feeding = PixelPreprocess(resize=resize, image_size=(6, 6), mean=(0, 0, 0), std=(1, 1, 1), offset=lambda n: n // 2)
    (prepared,) = feeding.prepare([Image.fromarray(image)])
    assert tuple(prepared.shape[1:]) == sides
    assert feeding.collate([prepared])["pixels"].max() == pytest.approx(200 / 255)


class CenterCrop:
    """Stands for torchvision's, which is known by its name."""

    def __call__(self, image: Image.Image) -> Image.Image:
        raise AssertionError("the crop is left to the batch")


@pytest.mark.parametrize("last", [[], [CenterCrop()]])
def test_of_transforms_all_is_done_ahead_but_the_crop(last: list[Callable[[Image.Image], Image.Image]]) -> None:
    steps: list[Callable[[Image.Image], Image.Image]] = [lambda image: image.resize((8, 7)), lambda i: i.rotate(180)]
    feeding = PixelPreprocess.of_transforms([*steps, *last], image_size=(4, 5), mean=(0, 0, 0), std=(1, 1, 1))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 8, 3), dtype=np.uint8))
    pixels = feeding.collate(feeding.prepare([image]))["pixels"][0]
    # Three pixels too many in each direction: half of that is rounded to the even number, 2.
    expected = np.asarray(image.rotate(180))[2:6, 2:7].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)
