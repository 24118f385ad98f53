"""Small items of every modality, generated: what a backbone is checked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetuner_core.values import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS = (
    "a cat sits on the mat",
    "dog",
    "the quick brown fox jumps over the lazy dog, and the dog sits on the mat with the cat",
    "Größe, 東京 и мир 🙂",
    "red shoes for running, size 42",
)
LONG_TEXT = "the cat and the dog sit on the mat and look at the fox. " * 8
ODD_TEXTS = {
    "an empty text": "",
    "spaces alone": "  \n\t ",
    "one letter": "a",
    "letters of no alphabet": "🙂\u200b\ufffd\x00",
    "a text longer than most networks read": "cat and dog " * 400,
}


def items_of(modality: Modality, width: int) -> Sequence[object]:
    """A few different items, of different sizes where they have one.

    Args:
        modality: of which kind.
        width: of vectors.
    """
    if modality == "text":
        return TEXTS
    if modality == "image":
        return [picture(number, *size) for number, size in enumerate(((64, 64), (97, 61), (40, 120), (33, 32)))]
    return list(np.random.default_rng(0).normal(size=(5, width)).astype(np.float32))


def neighbour_of(modality: Modality, width: int) -> object:
    """An item that takes much more room than those of `items_of`, or has much larger values."""
    if modality == "text":
        return LONG_TEXT
    return picture(9, 400, 300) if modality == "image" else np.full(width, 100, dtype=np.float32)


def odd_items_of(modality: Modality, width: int) -> dict[str, object]:
    """Items as people have them, and as no training set does, each with what it is."""
    if modality == "text":
        return dict(ODD_TEXTS)
    if modality == "vector":
        return {
            "a vector of zeros": np.zeros(width, dtype=np.float32),
            "a vector of whole numbers": np.arange(width),
            "a list of numbers": [0.5] * width,
        }
    colours = picture(0, 50, 40)
    return {
        "a picture of one pixel": picture(1, 1, 1),
        "a picture of one row": picture(2, 90, 1),
        **{f"a picture of mode {mode}": colours.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "F")},
        "a picture with 16 bits a pixel": _deep(colours),
    }


def picture(seed: int, width: int, height: int) -> Image:
    """Waves and noise, whose colours, direction and brightness the seed decides."""
    from PIL import Image

    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 12
    angle = random.uniform(0, np.pi)
    waves = np.stack([np.sin(x * np.cos(angle) + y * np.sin(angle) + phase) for phase in random.uniform(0, 6, 3)], -1)
    values = random.uniform(60, 200, 3) + waves * 50 + random.normal(scale=20, size=(height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _deep(image: Image) -> Image:
    from PIL import Image

    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
