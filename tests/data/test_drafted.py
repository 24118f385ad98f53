from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetuner_core.data import drafted, images
from finetuner_core.data.drafted import GAP, DraftedJpeg, open_image
from finetuner_core.data.images import read_image
from finetuner_core.errors import DataError

BICUBIC, BILINEAR, NEAREST = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@cache
def photo(width: int, height: int) -> Image.Image:
    """Shapes of all sizes with hard edges, under grain, none of them symmetrical."""
    rng = np.random.default_rng(width)
    pixels = np.zeros((height, width, 3))
    pixels += np.linspace(40, 180, width)[None, :, None]
    for _ in range(150):
        top, left = rng.integers(height), rng.integers(width)
        size = int(np.exp(rng.uniform(1, 6)))
        pixels[top : top + size, left : left + 2 * size] = rng.integers(0, 256, 3)
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal to noise in decibels."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    error = np.mean((np.asarray(one, dtype=np.float64) - np.asarray(other)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 99.0


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes in which photos were decoded."""
    sizes: list[tuple[int, int]] = []

    def counted(image: Image.Image) -> Image.Image:
        sizes.append(image.size)
        return real(image)

    real = images.as_rgb
    monkeypatch.setattr(images, "as_rgb", counted)
    monkeypatch.setattr(drafted, "as_rgb", counted)
    return sizes


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "colour": jpeg,
    "fine colour": lambda image: jpeg(image, subsampling=0),
    "progressive": lambda image: jpeg(image, progressive=True),
    "grey": lambda image: jpeg(image.convert("L")),
    "inks": lambda image: jpeg(image.convert("CMYK")),
    "several": lambda image: several(image),
}


def several(image: Image.Image) -> bytes:
    """A file as many cameras make it, with a preview behind the photo."""
    file = io.BytesIO()
    image.save(file, "MPO", quality=90, save_all=True, append_images=[image.resize((64, 64))])
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
def test_a_large_photo_is_decoded_coarsely_and_looks_the_same(
    kind: str, resample: Image.Resampling, decoded: list[tuple[int, int]]
) -> None:
    content = KINDS[kind](photo(1201, 803))
    small = open_image(content).resize((96, 64), resample)
    assert decoded == [(301, 201)]
    assert psnr(small, read_image(content).resize((96, 64), resample)) > 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_holds(orientation: int, decoded: list[tuple[int, int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(photo(1199, 803), exif=exif)
    image, whole = open_image(content), read_image(content)
    assert image.size == whole.size == ((803, 1199) if orientation > 4 else (1199, 803))
    for size in ((96, 64), (64, 96)):
        decoded.clear()
        small = open_image(content).resize(size, BICUBIC)
        assert psnr(small, whole.resize(size, BICUBIC)) > 38
        assert decoded[0][0] < 1199


@pytest.mark.parametrize(("width", "height"), [(1600, 1067), (1593, 1067), (801, 1607), (4001, 520), (1024, 1024)])
@pytest.mark.parametrize("size", [(100, 67), (67, 100), (64, 64), (33, 180), (200, 30)])
def test_what_is_decoded_is_larger_than_what_is_asked_for_by_the_gap(
    width: int, height: int, size: tuple[int, int], decoded: list[tuple[int, int]]
) -> None:
    content = jpeg(photo(width, height))
    small = open_image(content).resize(size, BILINEAR)
    assert small.size == size
    ((across, down),) = decoded
    if (across, down) != (width, height):
        assert across >= size[0] * GAP - 1
        assert down >= size[1] * GAP - 1
    # Half of that would not be enough, or it is the least that a decoder makes.
    assert min(across / size[0], down / size[1]) < 2.1 * GAP or across == -(-width // 8)


def test_the_picture_does_not_move() -> None:
    """Of a photo whose sides are no multiple of 8 the last pixels make a part of one, and it ends within that."""
    ramp = np.linspace(0, 255, 1025)[None, :, None] * np.ones((1025, 1, 3))
    content = jpeg(Image.fromarray(ramp.round().astype(np.uint8)), quality=98)
    for size in (32, 40):
        small = np.asarray(open_image(content).resize((size, size), BILINEAR), dtype=np.float64)
        expected = (np.arange(size) + 0.5) / size * 255
        # Stretched to whole pixels it would be off by up to 7 / 1025 of the width, 1.7 grey levels.
        assert np.abs(small.mean((0, 2)) - expected)[2:-2].max() < 1


@pytest.mark.parametrize(("size", "small"), [((511, 1000), (10, 10)), ((700, 600), (224, 224)), ((60, 80), (8, 8))])
def test_another_photo_is_read_as_always_bit_by_bit(size: tuple[int, int], small: tuple[int, int]) -> None:
    content = jpeg(photo(*size))
    ours, whole = open_image(content).resize(small, BICUBIC), read_image(content).resize(small, BICUBIC)
    assert np.array_equal(np.asarray(ours), np.asarray(whole))


def test_no_other_format_waits(tmp_path: Path) -> None:
    image = photo(900, 600)
    for name in ("a.png", "a.bmp", "a.webp"):
        image.save(tmp_path / name)
        assert not isinstance(open_image(tmp_path / name), DraftedJpeg)
    assert not isinstance(open_image(image), DraftedJpeg)
    with Image.open(io.BytesIO(jpeg(image))) as given:
        # It is the person's, and a draft of it would stay one.
        assert not isinstance(open_image(given), DraftedJpeg)
        assert np.array_equal(np.asarray(given), np.asarray(read_image(given)))


def thumbnail(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((50, 50))
    return copy


def pasted(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (700, 700))
    canvas.paste(image, (3, 4))
    return canvas


WHOLE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop": lambda image: image.crop((10, 20, 100, 90)),
    "convert": lambda image: image.convert("L"),
    "copy": lambda image: image.copy(),
    "transpose": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "point": lambda image: image.point(lambda value: 255 - value),
    "array": lambda image: Image.fromarray(np.asarray(image)),
    "resize to its own size": lambda image: image.resize(image.size, BICUBIC),
    "resize a part": lambda image: image.resize((20, 20), BICUBIC, box=(5, 5, 400, 300)),
    "resize in two steps": lambda image: image.resize((20, 20), BICUBIC, reducing_gap=2.0),
    "take the nearest": lambda image: image.resize((20, 20), NEAREST),
    "enlarge": lambda image: image.resize((1300, 700)),
    "thumbnail": thumbnail,
    "split": lambda image: image.split()[1],
    "paste": pasted,
}


@pytest.mark.parametrize("what", WHOLE)
def test_for_anything_else_all_of_it_is_decoded(what: str) -> None:
    content = jpeg(photo(900, 600))
    image = open_image(content)
    assert isinstance(image, DraftedJpeg)
    assert (image.mode, image.size, image.width, image.height) == ("RGB", (900, 600), 900, 600)
    assert image.getbands() == ("R", "G", "B")
    ours, theirs = WHOLE[what](image), WHOLE[what](read_image(content))
    assert ours.mode == theirs.mode
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    # From then on it is an image as any other.
    assert np.array_equal(np.asarray(image), np.asarray(read_image(content)))
    assert type(image) is Image.Image


@pytest.mark.parametrize("as_path", [True, False])
def test_what_is_broken_is_named_where_it_is_decoded(tmp_path: Path, as_path: bool) -> None:
    content = jpeg(photo(1200, 800))
    path = tmp_path / "a.jpg"
    path.write_bytes(content[: len(content) // 2])
    item = path if as_path else path.read_bytes()
    with pytest.raises(DataError) as expected:
        read_image(item)
    for size in ((60, 40), (1000, 700)):
        with pytest.raises(DataError) as caught:
            open_image(item).resize(size, BICUBIC)
        assert str(caught.value) == str(expected.value)
    image = open_image(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.jpg\" cannot be read: there is no such file\.$"):
        image.resize((60, 40), BICUBIC)
