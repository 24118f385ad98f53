"""Reads any image that a person may have as plain RGB, or says which one cannot be read."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.errors import DataError
from finetuner_core.values import quote

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY_MODES = frozenset({"1", "L", "LA", "I;16"})


def read_image(item: object) -> Image:
    """An image as RGB, upright.

    Palettes and CMYK are converted, what is transparent is laid on white, 16-bit greys are scaled to 8, and the
    orientation that a camera noted is applied.

    Args:
        item: the path of an image file, or a `PIL.Image.Image`.

    Raises:
        DataError: if it is neither, or cannot be read; the message names the path.
    """
    from PIL import Image, ImageOps

    if not isinstance(item, str | Path | Image.Image):
        raise DataError(f"An image is given as a path or a PIL image, not as {type(item).__name__}.")
    try:
        image = item if isinstance(item, Image.Image) else _open(item)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # Pillow clips 16-bit greys when it converts them; their upper 8 bits are the picture.
            image = image.convert("I").point(lambda value: value / 256).convert("L")
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = getattr(item, "filename", None) if isinstance(item, Image.Image) else item
        raise DataError(f"The image {quote(name)} cannot be read: {_reason(error)}") from None


def find_unreadable(items: Sequence[object]) -> dict[int, str]:
    """Reads every image once, several at a time, so that a bad one shows before training and not in the midst of it.

    Returns:
        For the position of each image that cannot be read, why.
    """
    different = list(dict.fromkeys(items))
    with ThreadPoolExecutor() as pool:
        reason_of = dict(zip(different, pool.map(_why_unreadable, different), strict=True))
    return {position: reason_of[item] for position, item in enumerate(items) if reason_of[item]}


def are_grey(items: Sequence[object]) -> bool:
    """Whether all images are stored without colour, as drawings, scans and characters are."""
    return all(_mode(item) in _GREY_MODES for item in items)


def _open(path: str | Path) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of a size at which it does not refuse yet, and of metadata that it repairs.
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            image.load()
            return image


def _mode(item: object) -> str:
    from PIL import Image

    if isinstance(item, Image.Image):
        return item.mode
    with Image.open(str(item)) as image:
        return image.mode


def _why_unreadable(item: object) -> str:
    from PIL import Image

    try:
        if isinstance(item, str | Path):
            with warnings.catch_warnings(), Image.open(item) as image:
                warnings.simplefilter("ignore")
                # JPEG decodes at an eighth of its size in a fraction of the time, and is read to its end all the same.
                image.draft("RGB", (1, 1))
                image.load()
        else:
            read_image(item)
    except DataError as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"The image {quote(item)} cannot be read: {_reason(error)}"
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file."
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is in no image format that Pillow knows."
    return f"{error}."
