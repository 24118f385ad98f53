from __future__ import annotations

import pickle
import struct
import tarfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetuner_core.data import images
from finetuner_core.data.images import are_grey, find_unreadable, read_image
from finetuner_core.data.slices import TarSlice
from finetuner_core.errors import DataError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)  # type: ignore[arg-type]
    return path


def pixels_of(item: object) -> np.ndarray:
    image = read_image(item)
    assert image.mode == "RGB"
    return np.asarray(image)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / 255
    return colours * share + 255 * (1 - share)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


class TestModes:
    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "A.PNG"])
    def test_colour_is_kept(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path / name, COLOURS)
        assert np.array_equal(pixels_of(path), COLOURS)
        assert np.array_equal(pixels_of(str(path)), COLOURS)

    def test_grey(self, tmp_path: Path) -> None:
        assert np.array_equal(pixels_of(save(tmp_path / "a.png", GREY)), grey(GREY))

    def test_black_and_white(self, tmp_path: Path) -> None:
        expected = np.where(GREY > 127, 255, 0)
        assert np.array_equal(pixels_of(save(tmp_path / "a.png", GREY > 127)), grey(expected))

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_16_bit_grey_keeps_its_picture(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path / name, DEEP)
        with Image.open(path) as image:
            assert image.mode.startswith("I")
        assert np.array_equal(pixels_of(path), grey(DEEP // 256))

    def test_transparent_colour_is_laid_on_white(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.concatenate([COLOURS, ALPHA], axis=-1))
        assert np.allclose(pixels_of(path), on_white(COLOURS, ALPHA), atol=1)

    def test_transparent_grey_is_laid_on_white(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA[..., 0])]).save(path)
        assert np.allclose(pixels_of(path), on_white(grey(GREY), ALPHA), atol=1)

    def test_a_palette_with_transparency_is_laid_on_white(self, tmp_path: Path) -> None:
        image = Image.new("P", (3, 1))
        image.putpalette([255, 0, 0, 0, 0, 255, 10, 20, 30])
        image.putdata([0, 1, 2])
        image.save(tmp_path / "one.png", transparency=1)
        image.save(tmp_path / "each.png", transparency=bytes([255, 0, 128]))
        assert pixels_of(tmp_path / "one.png").tolist() == [[[255, 0, 0], [255, 255, 255], [10, 20, 30]]]
        each = on_white(np.array([[255, 0, 0], [0, 0, 255], [10, 20, 30]]), np.array([[255], [0], [128]]))
        assert np.allclose(pixels_of(tmp_path / "each.png")[0], each, atol=1)

    def test_cmyk(self, tmp_path: Path) -> None:
        inks = {"red": (0, 255, 255, 0), "white": (0, 0, 0, 0), "black": (0, 0, 0, 255), "cyan": (255, 0, 0, 0)}
        image = Image.new("CMYK", (4, 1))
        image.putdata(list(inks.values()))
        image.save(tmp_path / "a.tif")
        assert pixels_of(tmp_path / "a.tif").tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 0], [0, 255, 255]]]

    def test_one_pixel(self, tmp_path: Path) -> None:
        assert pixels_of(save(tmp_path / "a.gif", np.full((1, 1), 9, np.uint8))).tolist() == [[[9, 9, 9]]]

    def test_an_image_in_memory(self) -> None:
        assert np.array_equal(pixels_of(Image.fromarray(COLOURS)), COLOURS)
        assert np.array_equal(pixels_of(Image.fromarray(GREY)), grey(GREY))


# What the picture has to become, by the value of the EXIF tag: https://exif.org/Exif2-2.PDF, 4.6.4, Orientation.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_what_a_camera_held_askew_is_set_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", COLOURS, exif=exif)
    assert np.array_equal(pixels_of(path), UPRIGHT[orientation](COLOURS))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is, and has next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    """Files that cannot be read, by what is wrong with them."""
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / "whole.jpg", noise).read_bytes()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "text.png": b"no image at all",
        "empty.png": b"",
        "bomb.png": png_header(60_000, 60_000),
        "large.png": png_header(10_000, 10_000),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    return {name: tmp_path / name for name in (*contents, "folder.png", "missing.png")}


REASONS = {
    "truncated.jpg": "image file is truncated",
    "text.png": "it is in no image format that Pillow knows.",
    "empty.png": "it is in no image format that Pillow knows.",
    "bomb.png": "could be decompression bomb DOS attack.",
    # Large enough for a warning by Pillow, and broken besides.
    "large.png": "image file is truncated",
    "folder.png": "it is a folder.",
    "missing.png": "there is no such file.",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_read_is_named(bad: dict[str, Path], name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_image(bad[name])
    message = str(caught.value)
    assert message.startswith(f'The image "{bad[name]}" cannot be read: ')
    assert REASONS[name] in message
    assert not message.endswith("..")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("item", [GREY, None, 3, bytearray(b"a.png")], ids=lambda item: type(item).__name__)
def test_what_is_no_image(item: object) -> None:
    with pytest.raises(DataError, match=f"a path, a PIL image or bytes, not as {type(item).__name__}"):
        read_image(item)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.org/b.png",
        "https://a.org/b.png",
        "HTTPS://a.org/b.png",
        "s3://bucket/b.png",
        "gs://bucket/b.png",
        "hf://datasets/a/b.png",
        "file:///a/b.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:;base64,iVBORw0KGgo=",
        Path("https://a.org/b.png"),
    ],
)
def test_an_address_is_not_fetched(url: str | Path) -> None:
    with pytest.raises(DataError) as caught:
        read_image(url)
    assert str(caught.value) == f'The image "{url}" is a URL. Images are read from files: download them first.'
    assert find_unreadable([url]) == {0: str(caught.value)}


@pytest.mark.parametrize("name", ["http.png", "data:1.png", "a:b.png", "data/http:b.png", "C:/b.png", "my.run:/b.png"])
def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    save(Path(name), COLOURS)
    assert np.array_equal(pixels_of(name), COLOURS)
    assert np.array_equal(pixels_of(Path(name)), COLOURS)


def as_slice(path: Path, folder: Path) -> TarSlice:
    """The same file within a tar."""
    with tarfile.open(folder / f"{path.stem}.tar", "w") as tar:
        tar.add(path, "0001.png")
    with tarfile.open(folder / f"{path.stem}.tar") as tar:
        member = tar.getmember("0001.png")
        return TarSlice(Path(str(tar.name)), member.name, member.offset_data, member.size)


class TestWithinFiles:
    @pytest.mark.parametrize("pixels", [COLOURS, GREY, DEEP], ids=["colours", "grey", "deep"])
    def test_is_read_as_the_file_is(self, tmp_path: Path, pixels: np.ndarray) -> None:
        path = save(tmp_path / "a.png", pixels)
        items: list[object] = [path.read_bytes(), as_slice(path, tmp_path)]
        for item in items:
            assert np.array_equal(pixels_of(item), pixels_of(path))
            assert are_grey([item]) == are_grey([path])
        assert find_unreadable(items) == {}

    @pytest.mark.parametrize("name", ["truncated.jpg", "text.png", "empty.png", "bomb.png", "large.png"])
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, bad: dict[str, Path], name: str) -> None:
        content = bad[name].read_bytes()
        member = as_slice(bad[name], tmp_path)
        shown = {
            content: f"An image of {len(content):,} bytes ({content[:8].hex(' ')}...)",
            member: f'The image "{tmp_path / bad[name].stem}.tar: 0001.png"',
        }
        for item, start in shown.items():
            with pytest.raises(DataError) as caught:
                read_image(item)
            assert str(caught.value).startswith(f"{start} cannot be read: ")
            assert REASONS[name] in str(caught.value)
            assert len(str(caught.value).splitlines()) == 1
            assert find_unreadable([item, item]) == dict.fromkeys((0, 1), str(caught.value))

    def test_a_tar_that_was_cut_or_taken_away(self, tmp_path: Path) -> None:
        member = as_slice(save(tmp_path / "a.png", COLOURS), tmp_path)
        whole = member.path.read_bytes()
        member.path.write_bytes(whole[: member.offset + member.size - 1])
        with pytest.raises(DataError, match=r"a\.tar: 0001\.png\" cannot be read: the tar is not whole\.$"):
            read_image(member)
        member.path.unlink()
        with pytest.raises(DataError, match=r"a\.tar: 0001\.png\" cannot be read: there is no such file\.$"):
            read_image(member)

    def test_equal_images_are_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        member = as_slice(save(tmp_path / "a.png", COLOURS), tmp_path)
        content = member.read()
        reads: list[object] = []
        why = images._why_unreadable

        def counted(item: object) -> str:
            reads.append(item)
            return why(item)

        monkeypatch.setattr(images, "_why_unreadable", counted)
        assert find_unreadable([member, replace(member), content, bytes(bytearray(content))]) == {}
        assert len(reads) == 2

    def test_goes_to_other_processes(self, tmp_path: Path) -> None:
        member = as_slice(save(tmp_path / "a.png", COLOURS), tmp_path)
        assert pickle.loads(pickle.dumps(member)) == member


def test_an_image_in_memory_that_was_closed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS)
    with Image.open(path) as image:
        pass
    with pytest.raises(DataError, match=f'The image "{path}" cannot be read: .*closed'):
        read_image(image)


# A directory of nine entries, none of which is there.
BROKEN_EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x09\0"


class TestWarnings:
    def test_a_large_image_is_read_in_silence_and_a_bomb_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "a.png", COLOURS)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # it has 35
        with pytest.warns(Image.DecompressionBombWarning):
            Image.open(path).close()
        assert np.array_equal(pixels_of(path), COLOURS)
        assert find_unreadable([path]) == {}
        assert not are_grey([path])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(DataError, match="decompression bomb"):
            read_image(path)
        assert list(find_unreadable([path])) == [0]

    def test_broken_metadata_does_not_matter(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", COLOURS, exif=BROKEN_EXIF)
        with pytest.warns(UserWarning, match="Corrupt EXIF data"), Image.open(path) as image:
            image.getexif()
        assert pixels_of(path).shape == COLOURS.shape
        assert find_unreadable([path]) == {}

    def test_several_threads_read_in_silence_and_leave_the_filters(self, tmp_path: Path, bad: dict[str, Path]) -> None:
        path = save(tmp_path / "a.jpg", COLOURS, exif=BROKEN_EXIF)
        expected = pixels_of(path)
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            for pixels in pool.map(pixels_of, [path] * 200):
                assert np.array_equal(pixels, expected)
        find_unreadable([*bad.values()] * 20)
        assert list(warnings.filters) == before
        with pytest.warns(UserWarning, match="Corrupt EXIF data"), Image.open(path) as image:
            image.getexif()

    def test_one_image_in_memory_is_read_by_several_threads(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8))
        expected = pixels_of(path)
        for _ in range(5):
            with Image.open(path) as image, ThreadPoolExecutor(8) as pool:
                for pixels in pool.map(pixels_of, [image] * 16):
                    assert np.array_equal(pixels, expected)


class TestFindUnreadable:
    def test_finds_the_bad_ones_and_no_other(self, tmp_path: Path, bad: dict[str, Path]) -> None:
        good = [
            save(tmp_path / "a.jpg", COLOURS),
            save(tmp_path / "cmyk.jpg", COLOURS, "CMYK"),
            save(tmp_path / "progressive.jpg", COLOURS, progressive=True),
            save(tmp_path / "a.png", np.concatenate([COLOURS, ALPHA], axis=-1)),
            save(tmp_path / "deep.png", DEEP),
            save(tmp_path / "a.webp", COLOURS),
            save(tmp_path / "a.gif", GREY),
            Image.fromarray(COLOURS),
        ]
        items: list[object] = [*good, *bad.values(), good[0], bad["text.png"]]
        found = find_unreadable(items)
        assert sorted(found) == [*range(len(good), len(good) + len(bad)), len(items) - 1]
        for position, reason in found.items():
            with pytest.raises(DataError) as caught:
                read_image(items[position])
            assert reason == str(caught.value)

    def test_nothing_to_look_through(self) -> None:
        assert find_unreadable([]) == {}

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
    def test_agrees_with_reading_on_damaged_files(self, tmp_path: Path, suffix: str) -> None:
        noise = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        whole = save(tmp_path / f"whole.{suffix}", noise).read_bytes()
        paths = []
        for number, at in enumerate(range(0, len(whole), max(1, len(whole) // 60))):
            for kind, content in (("cut", whole[:at]), ("changed", whole[:at] + b"\xff\0\xff" + whole[at + 3 :])):
                paths.append(tmp_path / f"{kind}{number}.{suffix}")
                paths[-1].write_bytes(content)
        unreadable = set()
        for position, path in enumerate(paths):
            try:
                read_image(path)
            except DataError:
                unreadable.add(position)
        assert set(find_unreadable(paths)) == unreadable
        assert unreadable


@pytest.mark.parametrize(
    ("pixels", "mode", "expected"),
    [
        (GREY, None, True),
        (GREY, "1", True),
        (GREY, "LA", True),
        (DEEP, None, True),
        (COLOURS, None, False),
        (GREY, "RGB", False),
    ],
)
def test_are_grey(tmp_path: Path, pixels: np.ndarray, mode: str | None, expected: bool) -> None:
    path = save(tmp_path / "a.png", pixels, mode)
    with Image.open(path) as image:
        assert are_grey([path]) == are_grey([str(path)]) == are_grey([image]) == expected
    assert are_grey([save(tmp_path / "grey.png", GREY), path]) == expected
