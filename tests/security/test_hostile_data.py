"""Data that somebody has made to do harm. They are refused, or read without any."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuner_core.data.dataset import Cells
from finetuner_core.data.formats import arrays, columnar, tar, text
from finetuner_core.data.images import find_unreadable, read_image
from finetuner_core.data.tables import Table, read_table
from tests.security.conftest import Bomb, refused, refused_by_command

MEGA = 1 << 20


@pytest.fixture
def _low(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits a thousandth of what they are, so that a bomb of some megabytes is one."""
    monkeypatch.setattr(text, "_UNPACKED", MEGA)
    monkeypatch.setattr(text, "_RATIO", 10)
    monkeypatch.setattr(text, "LONGEST_LINE", MEGA // 4)
    monkeypatch.setattr(arrays, "_UNPACKED", MEGA)
    monkeypatch.setattr(columnar, "_UNPACKED", MEGA)
    monkeypatch.setattr(columnar, "_RATIO", 10)
    monkeypatch.setattr(tar, "_LARGEST_TEXT", MEGA)


def bzip2(content: bytes) -> bytes:
    """Streams one after the other, most of them the same: to pack what repeats takes it seconds."""
    packed, size = functools.cache(bz2.compress), 2800 * 100
    return b"".join(packed(content[start : start + size]) for start in range(0, len(content), size))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bzip2,
    ".xz": functools.partial(lzma.compress, preset=0),
}


@pytest.mark.usefixtures("_low")
@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lines.csv", b"text,label\n" + b"aaaaaaaaaaaaaaaaaaaaaaaaa,b\n" * MEGA, "unpacks to more than"),
        ("zeros.csv", b"text,label\n" + bytes(16 * MEGA), "letters or more"),
        ("line.csv", b"text,label\n" + b"a" * 16 * MEGA, "letters or more"),
        ("lines.jsonl", b'{"text": "aaaaaaaaaaaa"}\n' * MEGA, "unpacks to more than"),
        ("line.jsonl", b'{"text": "' + b"a" * 16 * MEGA, "letters or more"),
        ("lines.txt", b"aaaaaaaaaaaaaaa\n" * MEGA, "unpacks to more than"),
    ],
)
def test_a_packed_bomb_is_refused_before_it_goes_off(
    name: str, content: bytes, expected: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"{name}{suffix}"
    file.write_bytes(PACK[suffix](content))
    assert file.stat().st_size < MEGA // 4
    # A block of rows, and the dictionary of xz, are held as well.
    with refused(file.name, expected, most=(48 if name.startswith("lines") else 12) * MEGA):
        read_table(file)


@pytest.mark.usefixtures("_low")
@pytest.mark.parametrize("suffix", PACK)
def test_what_is_packed_as_texts_are_is_read(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"texts.csv{suffix}"
    rows = [f"{value},{value % 7}" for value in np.random.default_rng(0).integers(1 << 62, size=100_000).tolist()]
    file.write_bytes(PACK[suffix]("\n".join(["text,label", *rows]).encode()))
    assert len(read_table(file)) == 100_000


def npy(shape: tuple[int, ...], content: bytes, kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def archive(file: Path, members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file


@pytest.mark.usefixtures("_low")
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "packed"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npy((1 << 40,), b"abcd"), "its shape needs"),
        (npy((1 << 62, 1 << 62), b"abcd"), "its shape needs"),
        (npy((2, 2), bytes(400)), "its shape needs"),
        (npy((-1,), b"abcd"), ""),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535, "cannot be read as .npz"),
        (
            b"\x93NUMPY\x01\x00\x76\x00" + b"__import__('os').system('touch canary')".ljust(118),
            "cannot be read as .npz",
        ),
    ],
)
def test_an_array_of_a_false_shape_is_refused(content: bytes, expected: str, packing: int, tmp_path: Path) -> None:
    with refused("a.npz", expected):
        read_table(archive(tmp_path / "a.npz", {"vectors.npy": content}, packing))


@pytest.mark.usefixtures("_low")
def test_an_archive_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    file = archive(tmp_path / "a.npz", {"vectors.npy": npy((MEGA, 4), bytes(16 * MEGA))})
    with refused("a.npz", "numpy.savez, which does not pack", most=MEGA):
        read_table(file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_of_objects_is_not_unpickled(save: Callable[..., None], bomb: Bomb, tmp_path: Path) -> None:
    cells = np.empty(2, object)
    cells[:] = bomb
    save(tmp_path / "a.npz", vectors=cells)
    with refused("a.npz"):
        read_table(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.parquet", "a.arrow", "a.feather", "a.tar", "a.jsonl", "a.csv"])
def test_a_pickle_of_another_name_is_not_read(name: str, bomb: Bomb, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(bomb))
    with refused(name):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["../../outside.npy", "/etc/outside.npy", "..\\outside.npy"])
def test_names_in_an_archive_are_no_paths(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = archive(tmp_path / "in" / "a.npz", {name: npy((1,), b"abcd")})
    assert list(read_table(file).columns) == [name.removesuffix(".npy")]
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a.npz", "in"]


def tarred(file: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(file, "w") as opened:
        for member, content in members:
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def cells(table: Table, header: str) -> list[object]:
    """All cells of a column."""
    column = table.columns[header]
    return list(column.take(range(len(column))) if isinstance(column, Cells) else column)


@pytest.mark.parametrize("name", ["../../outside.txt", "/etc/outside.txt", "a/../../../outside.txt"])
def test_names_in_a_tar_are_no_paths(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = read_table(tarred(tmp_path / "in" / "a.tar", (member(name), b"hello")))
    assert cells(table, "text") == ["hello"]
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a.tar", "in"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_in_a_tar_are_no_samples(kind: bytes, tmp_path: Path) -> None:
    with refused("holds no samples"):
        read_table(tarred(tmp_path / "a.tar", (member("0.txt", kind, "/etc/passwd"), b"")))


@pytest.mark.usefixtures("_low")
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("0.txt", b"a" * 2 * MEGA, "no text of a sample"),
        ("0.json", b"[" * 100_000, "is no JSON"),
        ("0.json", b'{"a": ' * 50_000 + b"1" + b"}" * 50_000, "is no JSON"),
        ("0.json", b"[]", "holds a list"),
    ],
)
def test_texts_in_a_tar_that_are_none(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    with refused("a.tar", expected):
        read_table(tarred(tmp_path / "a.tar", (member(name), content)))


def test_a_member_of_more_bytes_than_the_tar(tmp_path: Path) -> None:
    file = tarred(tmp_path / "a.tar", (member("0.txt"), b"hello"))
    content = bytearray(file.read_bytes())
    content[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
    content[148:156] = f"{sum(content[:148]) + 8 * 32 + sum(content[156:512]):06o}\0 ".encode()
    file.write_bytes(content)
    with refused("a.tar"):
        read_table(file)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"a":' * 100_000, '{"text": NaN}', '{"text": ' + "9" * 10_000 + "}", "[]", "null"]
)
def test_json_lines_that_are_none(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with refused("a.jsonl, line 1"):
        read_table(tmp_path / "a.jsonl")


@pytest.mark.usefixtures("_low")
def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"' + "a,b\n" * MEGA)
    with refused("a.csv", "is not CSV"):
        read_table(tmp_path / "a.csv")


@pytest.mark.usefixtures("_low")
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_of_one_value_are_bounded(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    table = pa.table({"text": ["a" * 1000] * 20_000})
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=1000)
    with refused(file.name, "unpacks to more than"):
        read_table(file)


@pytest.mark.parametrize("shard", ["../../outside.arrow", "/etc/passwd", "..", "", 5])
def test_shards_of_a_saved_data_set_are_in_its_folder(shard: object, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with pa.ipc.new_file(tmp_path / "outside.arrow", pa.schema([("text", pa.string())])) as writer:
        writer.write_table(pa.table({"text": ["a"]}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": shard}]}))
    with refused("data"):
        read_table(folder)


def png(width: int, height: int) -> bytes:
    """A picture of one colour, whatever its size, in a few bytes a row of a thousand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch canary) (w) file\n%%EOF\n"

IMAGES: dict[str, tuple[bytes, str]] = {
    "a bomb": (png(100_000, 100_000), "decompression bomb"),
    "a bomb of one row": (png((1 << 31) - 1, 1), "cannot be read"),
    "a program for Ghostscript": (EPS, "it is EPS, which Pillow does not read itself"),
    "a pickle": (pickle.dumps(open), "no image format"),
    "a web page": (b"<svg><script>alert(1)</script></svg>", "no image format"),
    "nothing": (b"", "no image format"),
    "a picture cut short": (png(100, 100)[:60], "cannot be read"),
}


@pytest.mark.parametrize("animal", IMAGES)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", None], ids=["png", "jpg", "bytes"])
def test_a_hostile_image_is_refused(animal: str, name: str | None, tmp_path: Path) -> None:
    content, expected = IMAGES[animal]
    item: object = content
    if name is not None:
        (tmp_path / name).write_bytes(content)
        item = tmp_path / name
    with refused(expected):
        read_image(item)
    assert expected in find_unreadable([item])[0]


def test_an_image_that_is_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for item in (tmp_path / "a.png", "/dev/zero", "/dev/null"):
        with refused("a device or a pipe"):
            read_image(item)


@pytest.mark.parametrize(
    "item", ["http://127.0.0.1/a.png", "file:///etc/passwd", "ftp://a/b", "data:image/png;base64,AA"]
)
def test_an_address_is_not_asked(item: str) -> None:
    with refused("is a URL"):
        read_image(item)


ESCAPES = "\x1b]0;evil\x07\x1b[2J\x9b1m\u202egnp.exe"


def test_a_table_with_escapes_shows_none(tmp_path: Path) -> None:
    """In its header, its cells, and its name."""
    file = tmp_path / f"a{ESCAPES}.csv"
    file.write_text(f'text{ESCAPES},"la\nbel"\n' + f"hello{ESCAPES},x{ESCAPES}\n" * 3)
    assert "\\x1b" in refused_by_command("check", file)


def test_a_report_on_a_table_with_escapes_shows_none(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from finetuner_core.cli import cli

    file = tmp_path / "a.csv"
    file.write_text(f"text,label,more{ESCAPES}\n" + "".join(f"hello{row}{ESCAPES},x{ESCAPES},1\n" for row in range(6)))
    result = CliRunner().invoke(cli, ["check", str(file)])
    assert "x\\x1b" in result.output
    assert all(letter.isprintable() or letter in "\n\t" for letter in result.output), result.output


def test_a_table_is_what_it_was(tmp_path: Path) -> None:
    """What is shown is escaped; what is trained on is not."""
    (tmp_path / "a.csv").write_text(f"text,label\nhello{ESCAPES},=1+1\n")
    table: Table = read_table(tmp_path / "a.csv")
    assert cells(table, "text") == [f"hello{ESCAPES}"]
    assert cells(table, "label") == ["=1+1"]
