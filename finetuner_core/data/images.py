"""Reads any image that a person may have as plain RGB, or says which one cannot be read."""

from __future__ import annotations

import re
import stat
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING

from finetuner_core.data.silence import without_warnings
from finetuner_core.data.slices import TarSlice
from finetuner_core.errors import DataError
from finetuner_core.values import quote

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})

# Pillow gives these to another program (Ghostscript), or to whatever has registered itself for them.
_FOREIGN = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

# Images of more pixels are decoded one at a time. Pillow refuses those of more than 2 * PIL.Image.MAX_IMAGE_PIXELS.
_LARGE = 1 << 25

_decoding, _decoding_large = Lock(), RLock()

# A `Path` keeps one of the two slashes.
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(https?|s3|gs|ftp|file):/|data:(image/|;)", re.IGNORECASE)


def read_image(item: object) -> Image:
    """An image as RGB, upright.

    Palettes and CMYK are converted, what is transparent is laid on white, 16-bit greys are scaled to 8, and the
    orientation that a camera noted is applied.

    Args:
        item: the path of an image file, a `PIL.Image.Image`, the `bytes` of a file, or a `TarSlice`.

    Raises:
        DataError: if it is none of these, or cannot be read; the message names the path.
    """
    with opened(item) as image:
        return as_rgb(upright(image))


def is_url(path: str | Path) -> bool:
    """Whether what is given as a path is an address on the network, or holds the data itself."""
    return _URL.match(str(path)) is not None


def find_unreadable(items: Sequence[object]) -> dict[int, str]:
    """Reads every image once, several at a time, so that a bad one shows before training and not in the midst of it.

    Returns:
        For the position of each image that cannot be read, why.
    """
    keys = [item if isinstance(item, Hashable) else id(item) for item in items]
    different = dict(zip(keys, items, strict=True))
    with ThreadPoolExecutor() as pool:
        reason_of = dict(zip(different, pool.map(_why_unreadable, different.values()), strict=True))
    return {position: reason_of[key] for position, key in enumerate(keys) if reason_of[key]}


def are_grey(items: Sequence[object]) -> bool:
    """Whether all images are stored without colour, as drawings, scans and characters are."""
    with without_warnings():
        return all(_mode(item) in _GREY_MODES for item in items)


@contextmanager
def opened(item: object) -> Iterator[Image]:
    """An image as Pillow opens it, not decoded yet.

    Pillow warns of a size at which it does not refuse yet, and of metadata that it repairs: not within this.

    Args:
        item: as `read_image` takes it.

    Raises:
        DataError: if it is none of these, or cannot be opened, or what is done within it fails; it names the path.
    """
    from PIL import Image

    if not isinstance(item, str | Path | Image.Image | bytes | TarSlice):
        raise DataError(f"An image is given as a path, a PIL image or bytes, not as {type(item).__name__}.")
    if isinstance(item, str | Path) and is_url(item):
        raise DataError(f"The image {quote(item)} is a URL. Images are read from files: download them first.")
    try:
        with without_warnings():
            if isinstance(item, Image.Image):
                # It may stand in several rows, and is decoded where it is first asked for, which only one may do.
                with _decoding:
                    item.load()
                yield item
            else:
                with Image.open(_file(item)) as image:
                    if image.format in _FOREIGN:
                        raise ValueError(f"it is {image.format}, which Pillow does not read itself")
                    with _decoding_large if image.width * image.height > _LARGE else nullcontext():
                        yield image
    except (OSError, ValueError, SyntaxError, AssertionError, Image.DecompressionBombError) as error:
        raise DataError(f"{_named(item)} cannot be read: {_reason(error)}") from None


def as_rgb(image: Image) -> Image:
    """An image of any mode as RGB."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys when it converts them; their upper 8 bits are the picture.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def upright(image: Image) -> Image:
    """An image turned as the camera noted that it was held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _file(item: str | Path | bytes | TarSlice) -> str | Path | BytesIO:
    """What Pillow opens."""
    content = item.read() if isinstance(item, TarSlice) else item
    if isinstance(content, str | Path):
        kind = Path(content).stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise ValueError("it is no file, but a device or a pipe")
    return BytesIO(content) if isinstance(content, bytes) else content


def _mode(item: object) -> str:
    from PIL import Image

    if isinstance(item, Image.Image):
        return item.mode
    with Image.open(_file(item if isinstance(item, bytes | TarSlice) else str(item))) as image:
        return image.mode


def _named(item: object) -> str:
    if isinstance(item, bytes):
        return f"An image of {len(item):,} bytes (" + item[:8].hex(" ") + "...)"
    return f"The image {quote(getattr(item, 'filename', '') or item)}"


def _why_unreadable(item: object) -> str:
    try:
        with opened(item) as image:
            if image is not item:
                # JPEG decodes at an eighth of its size in a fraction of the time, and is read to its end all the same.
                image.draft(None, (1, 1))
            as_rgb(upright(image))
    except DataError as error:
        return str(error)
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file."
    if isinstance(error, IsADirectoryError):
        return "it is a folder."
    if isinstance(error, AssertionError):
        return "it was closed before it was read."
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is in no image format that Pillow knows."
    return f"{str(error).removesuffix('.')}."
