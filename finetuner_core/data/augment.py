"""Training images, varied at random: another crop each time, and mirrored where that keeps their meaning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_AREA = 0.35
MAX_RATIO = 4 / 3


def generator_of(seed: int, epoch: int, step: int) -> torch.Generator:
    """The randomness of one batch, whichever thread prepares it, after whichever others, and also after a resumption.

    Its seed is 64 bits of SHA-256 of the three numbers: neighbours, and a seed and an epoch that change places, give
    streams that have nothing in common. With a sum of multiples of them two batches of a long training could get the
    same one.

    Args:
        seed: of the whole training, any integer.
        epoch: number of the epoch.
        step: number of the batch within it.

    Returns:
        A generator on the CPU, in the same state each time.
    """
    digest = hashlib.sha256(f"{seed} {epoch} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def augment(
    images: Sequence[Tensor], size: tuple[int, int], generator: torch.Generator, *, mirror: bool
) -> list[Tensor]:
    """Takes a random part of each image, resized to what the network sees.

    The part has between 35 % and all of the area, at a ratio of sides between 3:4 and 4:3, as in
    https://arxiv.org/abs/1409.4842 but less extreme: what makes two photos alike must still be in the picture.
    Of an image that is longer than that, the part is as high or as wide as the image, and smaller for it.

    Args:
        images: uint8 (3, H, W) each.
        size: height and width in pixels of what comes out.
        generator: where the randomness comes from.
        mirror: whether to mirror each image with probability one half.

    Returns:
        uint8 (3, size[0], size[1]) each.
    """
    return [_augment_one(image, size, generator, mirror) for image in images]


def _augment_one(image: Tensor, size: tuple[int, int], generator: torch.Generator, mirror: bool) -> Tensor:
    top, left, height, width = _random_box(image.shape[-2], image.shape[-1], generator)
    part = image[:, top : top + height, left : left + width]
    resized = F.interpolate(part[None], size=size, mode="bilinear", antialias=True)[0]
    if mirror and torch.rand((), generator=generator) < 0.5:
        resized = resized.flip(-1)
    return resized


def _random_box(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    area_share, log_ratio, y, x = torch.rand(4, generator=generator).tolist()
    area = height * width * (MIN_AREA + area_share * (1 - MIN_AREA))
    ratio = math.exp((2 * log_ratio - 1) * math.log(MAX_RATIO))
    box_height = min(height, max(1, round(math.sqrt(area / ratio))))
    box_width = min(width, max(1, round(math.sqrt(area * ratio))))
    return int(y * (height - box_height + 1)), int(x * (width - box_width + 1)), box_height, box_width
