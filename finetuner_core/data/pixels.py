"""Feeding images to a network, for every plugin that has one for them: the two halves of an image preprocess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.data.drafted import open_image
from finetuner_core.interfaces import Batch

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_RATIO = 64
"""How many times longer than its shorter side an image may be; of a longer one the middle is taken."""


class PixelPreprocess:
    """Reads and resizes images ahead; crops them to size and normalises them in the batch.

    Args:
        resize: makes an RGB image nearly as large as the network wants it, no side smaller than `image_size`.
        image_size: height and width in pixels of what the network sees.
        mean: of each channel, subtracted from values between 0 and 1.
        std: of each channel, what the rest is divided by.
        offset: where a crop starts, given how many pixels are too many. Libraries differ in how they round one half.
    """

    def __init__(
        self,
        *,
        resize: Callable[[Image], Image],
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        offset: Callable[[int], int],
    ) -> None:
        self.image_size = image_size
        self._resize = resize
        self._offset = offset
        self._mean = torch.tensor(mean).view(-1, 1, 1)
        self._std = torch.tensor(std).view(-1, 1, 1)

    @classmethod
    def of_transforms(
        cls,
        steps: Sequence[Callable[[Image], Image]],
        *,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> PixelPreprocess:
        """What torchvision's transforms do with a picture before they make a tensor of it.

        Args:
            steps: the transforms up to there, in their order; a plain `CenterCrop` at their end is left to the batch.
            image_size: as above.
            mean: as above.
            std: as above.
        """
        if type(steps[-1]).__name__ == "CenterCrop":
            steps = steps[:-1]
        return cls(resize=_Steps(steps), image_size=image_size, mean=mean, std=std, offset=_half_even)

    def prepare(self, items: Sequence[object]) -> list[Tensor]:
        """Images from paths or PIL images, uint8 (3, H, W) each."""
        return [_to_pixels(self._resize(_middle(open_image(item)))) for item in items]

    def length(self, prepared: Tensor) -> int:
        """1: all images of a network are of one size."""
        return 1

    def collate(self, prepared: Sequence[Tensor]) -> Batch:
        """`pixels`, float32 (B, 3, height, width)."""
        pixels = torch.stack([self._crop(image) for image in prepared])
        return {"pixels": (pixels.float() / 255 - self._mean) / self._std}

    def export(self, folder: Path) -> Mapping[str, object]:
        """What is done to an image, for who does it without Finetuner: resized, cropped in its middle, normalised."""
        return {
            "image_size": list(self.image_size),
            "resize": _described(self._resize),
            "crop": "center",
            "mean": self._mean.flatten().tolist(),
            "std": self._std.flatten().tolist(),
        }

    def _crop(self, image: Tensor) -> Tensor:
        """The middle of an image; where it is too small, black is put around it."""
        for dim, size in ((-2, self.image_size[0]), (-1, self.image_size[1])):
            missing = size - image.shape[dim]
            if missing > 0:
                before, after = missing // 2, missing - missing // 2
                image = F.pad(image, (0, 0, before, after) if dim == -2 else (before, after))
            elif missing < 0:
                image = image.narrow(dim, self._offset(-missing), size)
        return image


class _Steps:
    """What is done to a picture, one step after the other; a class, so that it can be pickled."""

    def __init__(self, steps: Sequence[Callable[[Image], Image]]) -> None:
        self.steps = steps

    def __call__(self, image: Image) -> Image:
        for step in self.steps:
            image = step(image)
        return image


def _described(step: Callable[[Image], Image]) -> list[dict[str, object]]:
    """What a step does, as its plain attributes tell it: its name, sizes, and how it interpolates."""
    if isinstance(step, _Steps):
        return [own for each in step.steps for own in _described(each)]
    told: dict[str, object] = {"step": type(step).__name__.lstrip("_")}
    for name, value in vars(step).items():
        plain = list(value) if isinstance(value, list | tuple) else getattr(value, "name", value)
        if not name.startswith("_") and isinstance(plain, str | int | float | list):
            told[name] = plain.lower() if isinstance(plain, str) else plain
    return [told]


def _half_even(excess: int) -> int:
    """Where torchvision's crop begins: at half of what is too much, rounded to the even number."""
    return round(excess / 2)


def _middle(image: Image) -> Image:
    """The middle of a strip, and any other image as it is.

    Enlarged until its shorter side is as long as the network wants it, an image of 1 x 30,000 pixels would fill the
    memory, and nearly all of it is then cropped away.
    """
    width, height = image.size
    longest = MAX_RATIO * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))


def _to_pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
