"""Photos that are decoded no finer than they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from finetuner_core.data.images import as_rgb, opened, read_image, upright
from finetuner_core.data.slices import TarSlice

GAP = 2.9
"""How many times wider and higher than what is asked for a photo is decoded at least.

From 3 on Pillow's documentation calls what comes out indistinguishable "in most cases". At 2.9 a phone's 4032 x 3024 is
decoded at a quarter for a network that resizes to 256. See `docs/adr/0014-threads-prepare-ahead.md` for the figures.
"""

_SMALL = 512
"""A photo with a shorter side than this is decoded at once: opening it twice would cost more than it saves."""

_LYING = (5, 6, 7, 8)
"""Orientations of EXIF in which width and height change places."""


def open_image(item: object) -> Image.Image:
    """The same as `read_image`, for an image that is to be resized: a large JPEG is not decoded before that.

    Args:
        item: as `read_image` takes it.

    Raises:
        DataError: as `read_image` does; if pixels cannot be read, where they are first asked for.
    """
    with opened(item) as image:
        # One that was given opened is the person's: a draft of it would stay one.
        if image is item or not isinstance(image, JpegImageFile) or min(image.size) < _SMALL:
            return as_rgb(upright(image))
        assert isinstance(item, str | Path | bytes | TarSlice)
        return DraftedJpeg(item, image.size[::-1] if _lies(image) else image.size)


class DraftedJpeg(Image.Image):
    """A JPEG as an upright RGB image, decoded when it is resized, and then in no more pixels than that needs.

    A JPEG consists of blocks of 8 x 8 pixels, and a decoder makes 4 x 4, 2 x 2 or one of each in a fraction of the time
    (`PIL.Image.Image.draft`). What is decoded stays `GAP` times as wide and high as what is asked for, so that the
    resizing decides what is seen, as it does with all of the pixels; and it is cut exactly where the whole photo ends,
    also where that is not at a whole pixel. As soon as anything else is asked for but its size, it becomes the decoded
    photo, as Pillow's own `StubImageFile` does.

    Args:
        item: the file, as `read_image` takes it.
        size: width and height of the whole photo, upright.
    """

    def __init__(self, item: str | Path | bytes | TarSlice, size: tuple[int, int]) -> None:
        super().__init__()
        self._mode = "RGB"
        self._size = size
        self._item = item

    def load(self) -> Any:
        """Decodes all of it."""
        whole = read_image(self._item)
        self.__class__ = whole.__class__  # type: ignore[assignment]
        self.__dict__ = whole.__dict__
        return self.load()

    def resize(
        self,
        size: Any,
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Image.Image:
        """The same as of any image, but for what a coarser decoding changes."""
        coarser = all(2 * GAP * wanted <= whole for wanted, whole in zip(size, self.size, strict=True))
        if coarser and box is None and reducing_gap is None and resample != Image.Resampling.NEAREST:
            resized = self._draft(tuple(size), resample)
            if resized is not None:
                return resized
        self.load()
        return self.resize(size, resample, box, reducing_gap)

    def _draft(self, size: tuple[int, int], resample: int | None) -> Image.Image | None:
        """`None` where Pillow does not know how."""
        with opened(self._item) as image:
            width, height = size[::-1] if _lies(image) else size
            drafted = image.draft(None, (int(GAP * width), int(GAP * height)))
            if drafted is None:
                return None
            _, box = drafted
            return upright(as_rgb(image).resize((width, height), resample, box))


def _lies(image: Image.Image) -> bool:
    return image.getexif().get(Base.Orientation) in _LYING
