"""Tars of samples against what the library webdataset reads of them, and damaged tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetuner_core.data.dataset import Cells, Column
from finetuner_core.data.forms import understand
from finetuner_core.data.images import read_image
from finetuner_core.data.slices import TarCells, TarSlice
from finetuner_core.data.tables import Table, read_table
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError
from finetuner_core.values import BackboneInfo


def png(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (3, 2), (shade, 0, 0)).save(content, "png")
    return content.getvalue()


def write(path: Path, members: Sequence[tuple[str, Any]], **options: Any) -> Path:
    mode = options.pop("mode", "w")
    with tarfile.open(path, mode, **options) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else content.encode()
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def columns_of(table: Table) -> dict[str, list[Any]]:
    """The cells of each column, images by what is in them."""
    found = {}
    for name, cells in table.columns.items():
        taken = cells.take(range(len(cells))) if isinstance(cells, Cells) else list(cells)
        found[name] = [cell.read() if isinstance(cell, TarSlice) else cell for cell in taken]
    return found


CAPTIONED = [
    ("0001.jpg", png(1)),
    ("0001.txt", "a cat\n"),
    ("0001.json", '{"width": 3, "tags": ["a", "b"], "exif": {"a": 1}, "text": "not this"}'),
    ("0002.PNG", png(2)),
    ("0002.txt", "\ufeffein Hund, groß"),
    ("0002.json", '{"width": 4, "source": null}'),
]


class TestSamples:
    def test_members_are_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", CAPTIONED)
        table = read_table(path)
        assert columns_of(table) == {
            "image": [png(1), png(2)],
            "text": ["a cat", "ein Hund, groß"],
            "width": [3, 4],
            "tags": [["a", "b"], None],
            "source": [None, None],
        }
        assert len(table) == 2
        assert table.where(1) == f"{path}: 0002"

    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "JPG"])
    def test_an_image_of_any_kind_with_a_label(self, tmp_path: Path, suffix: str) -> None:
        path = write(tmp_path / "a.tar", [(f"a/1.{suffix}", png(1)), ("a/1.cls", "7\n")])
        table = read_table(path)
        assert columns_of(table) == {"image": [png(1)], "label": ["7"]}
        images = table.columns["image"]
        assert isinstance(images, TarCells)
        (item,) = images.take([0])
        assert str(item) == f"{path}: a/1.{suffix}"

    def test_what_stands_before_the_last_dot_names_a_column(self, tmp_path: Path) -> None:
        members = [("1.anchor.jpg", png(1)), ("1.positive.jpg", png(2)), ("1.caption.txt", "x"), ("1.meta.json", "{}")]
        path = write(tmp_path / "a.tar", members)
        assert columns_of(read_table(path)) == {"anchor": [png(1)], "positive": [png(2)], "caption": ["x"]}

    def test_what_is_no_part_of_a_sample_is_left(self, tmp_path: Path) -> None:
        members = [
            ("__about__/a.txt", "x"),
            ("__info__", "x"),
            ("README", "x"),
            (".hidden.txt", "x"),
            ("a.b/._1.jpg", "of macOS"),
            ("a.b/1.jpg", png(1)),
            ("a.b/1.npy", "x"),
            ("a.b/1.txt", "one"),
            ("notes.md", "x"),
        ]
        path = write(tmp_path / "a.tar", members)
        assert columns_of(read_table(path)) == {"image": [png(1)], "text": ["one"]}

    def test_names_that_would_leave_the_folder_do_no_harm(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        path = folder / "a.tar"
        with tarfile.open(path, "w") as file:
            for name in ("../out.jpg", "/etc/out.jpg", "../../x/out.txt"):
                member = tarfile.TarInfo(name)
                member.size = len(png(1))
                file.addfile(member, io.BytesIO(png(1)))
            for name, kind in (
                ("link.jpg", tarfile.SYMTYPE),
                ("hard.jpg", tarfile.LNKTYPE),
                ("p.jpg", tarfile.FIFOTYPE),
            ):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, "/etc/passwd"
                file.addfile(link)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match="the byte 0x89 is no UTF-8 text"):
            read_table(path)
        path = write(path, [("../out.jpg", png(1)), ("/etc/out.jpg", png(2))])
        assert columns_of(read_table(path)) == {"image": [png(1), png(2)]}
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_and_foreign_names(self, tmp_path: Path, layout: int) -> None:
        folder = "d" * 90 + "/" + "e" * (9 if layout == tarfile.USTAR_FORMAT else 200)
        members = [(f"{folder}/猫 1.jpg", png(1)), (f"{folder}/猫 1.txt", "one"), (f"{folder}/2.jpg", png(2))]
        path = write(tmp_path / "a.tar", members, format=layout, encoding="utf-8")
        table = read_table(path)
        assert columns_of(table) == {"image": [png(1), png(2)], "text": ["one", None]}
        assert table.where(0) == f"{path}: {folder}/猫 1"

    def test_a_sample_does_not_go_on_in_the_next_tar(self, tmp_path: Path) -> None:
        write(tmp_path / "0.tar", [("1.jpg", png(1))])
        write(tmp_path / "1.tar", [("1.jpg", png(2)), ("1.txt", "two")])
        assert columns_of(read_table(str(tmp_path / "*.tar"))) == {"image": [png(1), png(2)], "text": [None, "two"]}


class TestShards:
    @pytest.fixture
    def shards(self, tmp_path: Path) -> Path:
        (tmp_path / "b").mkdir()
        for number in range(8, 12):
            write(tmp_path / "b" / f"train-{number:03}.tar", [("1.jpg", png(number)), ("1.cls", str(number))])
        write(tmp_path / "b" / "test-1.tar", [("1.jpg", png(0)), ("1.cls", "0")])
        return tmp_path / "b"

    @pytest.mark.parametrize(
        ("pattern", "labels"),
        [
            ("train-{008..011}.tar", "8 9 10 11"),
            ("train-{010..011}.tar", "10 11"),
            ("train-0{10..11}.tar", "10 11"),
            ("train-*.tar", "8 9 10 11"),
            ("train-00[89].tar", "8 9"),
            ("train-01?.tar", "10 11"),
            ("{test-1,train-009}.tar", "0 9"),
            ("{test-,train-01}1.tar", "0 11"),
            ("{train-00{8,9},test-1}.tar", "8 0 9"),
            ("{train-*,train-009}.tar", "8 9 10 11"),
        ],
    )
    def test_a_pattern(self, shards: Path, pattern: str, labels: str) -> None:
        table = read_table(str(shards / pattern))
        assert columns_of(table)["label"] == labels.split()
        assert columns_of(table)["image"] == [png(int(label)) for label in labels.split()]
        last = f"train-{int(labels.split()[-1]):03}" if labels.split()[-1] != "0" else "test-1"
        assert table.where(len(table) - 1) == f"{shards / last}.tar: 1"

    def test_a_file_whose_name_looks_like_a_pattern_is_itself(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a[1].tar", [("1.txt", "one")])
        assert columns_of(read_table(path)) == {"text": ["one"]}

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("other-*.tar", 'There is no file like "{folder}/other-*.tar".'),
            ("train-{010..013}.tar", 'There is no file "{folder}/train-012.tar".'),
            ("train-{13..12}.tar", 'There is no file like "{folder}/train-{{13..12}}.tar".'),
            ("gone.tar", 'There is no file or folder "{folder}/gone.tar".'),
        ],
    )
    def test_nothing_there(self, shards: Path, pattern: str, message: str) -> None:
        with pytest.raises(DataError) as caught:
            read_table(str(shards / pattern))
        assert str(caught.value) == message.format(folder=shards)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_webdataset(tmp_path: Path, seed: int) -> None:
    iterators = pytest.importorskip("webdataset.tariterators")
    rng = np.random.default_rng(seed)
    members: list[tuple[str, str | bytes]] = []
    for number in range(30):
        folder = ["", "x/", "y.z/", "./"][rng.integers(4)]
        sample = f"{folder}{number:03}"
        kinds = [("jpg", "PNG")[number % 2], "txt", "cls", "json", "seg.png", "npy", "a.txt"]
        for kind in rng.permutation(kinds)[: rng.integers(1, 6)].tolist():
            content = {"json": json.dumps({"key": number}), "cls": str(number)}.get(kind, f"{sample} {kind}")
            members.append((f"{sample}.{kind}", content))
        members += [("README", "x"), ("__a__/b.txt", "x"), (".c.txt", "x")][: rng.integers(4)]
    path = write(tmp_path / "a.tar", members)
    with path.open("rb") as stream:
        members_read = [found | {"__url__": ""} for found in iterators.tar_file_iterator(stream)]
    expected = []
    for sample in iterators.group_by_keys(members_read):
        row: dict[str, Any] = {}
        for extension, content in sample.items():
            column = {"jpg": "image", "png": "image", "seg.png": "seg", "txt": "text", "a.txt": "a", "cls": "label"}
            if extension.lower() in column:
                kept = content if column[extension.lower()] in ("image", "seg") else content.decode()
                row[column[extension.lower()]] = kept
            elif extension == "json":
                row["key"] = json.loads(content)["key"]
        if row or "json" in sample:
            expected.append((sample["__key__"], row))
    table = read_table(path)
    columns = columns_of(table)
    assert [table.where(row) for row in range(len(table))] == [f"{path}: {name}" for name, _ in expected]
    for place, (_, cells) in enumerate(expected):
        assert {name: found[place] for name, found in columns.items() if found[place] is not None} == cells


class TestCells:
    @pytest.fixture
    def cells(self, tmp_path: Path) -> TarCells:
        for shard in range(2):
            members = [(f"{n}.{'jpg' if n % 3 else 'txt'}", png(n) if n % 3 else "x") for n in range(6)]
            write(tmp_path / f"{shard}.tar", members)
        cells = read_table(str(tmp_path / "{0,1}.tar")).columns["image"]
        assert isinstance(cells, TarCells)
        return cells

    def test_take_and_select(self, cells: TarCells) -> None:
        whole = cells.take(range(12))
        assert [item is None for item in whole] == [True, False, False, True, False, False] * 2
        rows = [7, 1, 6, 1, 11]
        assert cells.take(rows) == [whole[row] for row in rows]
        assert cells.select(rows).take([4, 0]) == [whole[11], whole[7]]
        assert cells.select(np.array(rows)).select([1, 2]).take(range(2)) == [whole[1], None]
        assert len(cells.select(rows)) == 5
        assert np.asarray(read_image(whole[7])).tolist() == [[[1, 0, 0]] * 3] * 2

    def test_identities_are_places(self, cells: TarCells) -> None:
        rows = np.random.default_rng(0).integers(0, 12, 50)
        chosen = cells.select(rows)
        column = Column("image", "image", chosen.take(range(50)))
        assert chosen.identities().tolist() == column.identities.tolist()
        assert chosen.identities().dtype == np.int64


class TestRefused:
    @pytest.mark.parametrize(
        ("mode", "name", "command"),
        [
            ("w:gz", "a.tar.gz", "gzip -d"),
            ("w:gz", "a.tgz", "gzip -d"),
            ("w:gz", "a.tar", "gzip -d"),
            ("w:bz2", "a.tar.bz2", "bzip2 -d"),
            ("w:xz", "a.tar.xz", "xz -d"),
        ],
    )
    def test_packed_tars(self, tmp_path: Path, mode: str, name: str, command: str) -> None:
        path = write(tmp_path / name, CAPTIONED, mode=mode)
        with pytest.raises(DataError) as caught:
            read_table(path)
        assert str(caught.value) == (
            f"{path} is packed, and of a packed tar no member can be read without those before it.\n"
            f"Unpack it, but for the tar itself: {command} {path}"
        )

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([], "{path} holds no samples.\nA sample is 0001.jpg with"),
            (
                [("1.npy", "x"), ("2.md", "x"), ("README", "x")],
                "{path} holds no samples (2 are of other kinds).\nA sample",
            ),
            ([("1.jpg", "x"), ("1.jpg", "y")], '{path}: 1.jpg is the second member for "image" in its sample.'),
            ([("1.jpg", "x"), ("1.png", "y")], '{path}: 1.png is the second member for "image" in its sample.'),
            ([("1.json", "{}"), ("1.JSON", "{}")], '{path}: 1.JSON is the second member for "json" in its sample.'),
            (
                [("a/1.jpg", "x"), ("a/2.jpg", "x"), ("a/1.txt", "y")],
                '{path}: the members of the sample "a/1" are not next to each other.\nWrite them in the order of',
            ),
            ([("1.x.jpg", "x"), ("2.x.txt", "y")], '{path}: 2: "x" is an image in some samples, and a text in others.'),
            ([("1.x.txt", "x"), ("2.x.jpg", "y")], '{path}: 2: "x" is an image in some samples, and a text in others.'),
            ([("1.txt", b"ab\xe4")], "{path}: 1.txt: the byte 0xe4 is no UTF-8 text.\nSave it"),
            ([("1.json", "{")], "{path}: 1.json is no JSON: Expecting property name"),
            ([("1.json", b"\xff{}")], "{path}: 1.json is no JSON: 'utf-8' codec"),
            ([("1.json", "[" * 100_000)], "{path}: 1.json is no JSON: "),
            ([("1.json", "[1]")], '{path}: 1.json holds a list, and no object such as {{"text": "..."}}'),
            (
                [(f"photo.{number}.jpg", "x") for number in range(1001)],
                '{path}: photo: by here there are more than 1,000 columns ("1000").\nThe name of a sample ends at',
            ),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, members: list[tuple[str, str | bytes]], message: str) -> None:
        path = write(tmp_path / "a.tar", members)
        with pytest.raises(DataError) as caught:
            read_table(path)
        assert str(caught.value).startswith(message.format(path=path))
        assert len(str(caught.value).splitlines()) <= 2

    @pytest.mark.parametrize("content", [b"", b"no tar", b"no tar at all, and longer than a block. " * 50])
    def test_what_is_no_tar(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.tar"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path} cannot be read as a tar: "):
            read_table(path)

    def test_a_tar_that_was_cut(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", CAPTIONED)
        whole = path.read_bytes()
        expected = columns_of(read_table(path))["image"]
        with tarfile.open(path) as file:
            ends = {0, *(member.offset for member in file.getmembers()), file.offset}
        # Where it is cut between two members it is a tar without an end, such as some programs write.
        for at in range(512 * (len(whole) // 512), 0, -64):
            path.write_bytes(whole[:at])
            if at in ends or at > max(ends):
                assert columns_of(read_table(path))["image"] == expected[: len(columns_of(read_table(path))["image"])]
            else:
                with pytest.raises(DataError, match=r"cannot be read as a tar: .*\nIt is damaged, or not whole\.$"):
                    read_table(path)

    def test_a_tar_whose_headers_were_changed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", CAPTIONED)
        whole = path.read_bytes()
        with tarfile.open(path) as file:
            headers = [member.offset for member in file.getmembers()]
        for start in headers:
            for at in range(start, start + 512, 7):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
                with pytest.raises(DataError, match="cannot be read as a tar"):
                    read_table(path)

    def test_a_size_below_nothing_ends(self, tmp_path: Path) -> None:
        member = tarfile.TarInfo("1.txt")
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 4 + (-512).to_bytes(8, "big", signed=True)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path = tmp_path / "a.tar"
        path.write_bytes(bytes(header) + bytes(1024))
        with pytest.raises(DataError, match="cannot be read as a tar"):
            read_table(path)


IMAGES = BackboneInfo("viewer", "image-to-image", 4, "toy", "Images")
BOTH = BackboneInfo("both", "text-to-image", 4, "toy", "Texts and images")


class TestForms:
    def test_labels_and_captions(self, tmp_path: Path) -> None:
        labelled = write(tmp_path / "a.tar", [("1.jpg", png(1)), ("1.cls", "0"), ("2.jpg", png(2)), ("2.cls", "1")])
        assert understand(read_table(labelled), IMAGES).dataset.summary() == "2 labelled images in 2 classes"
        captioned = write(tmp_path / "b.tar", CAPTIONED)
        dataset = understand(read_table(captioned), BOTH).dataset
        assert dataset.summary() == "2 text-image pairs"
        (image,) = dataset.columns[1].take([1])
        assert str(image) == dataset.columns[1].shown(1) == f"{captioned}: 0002.PNG"
        assert np.asarray(read_image(image)).tolist() == [[[2, 0, 0]] * 3] * 2

    def test_a_sample_without_its_image_or_caption(self, tmp_path: Path) -> None:
        members = [("1.txt", "one"), ("2.jpg", png(2)), ("2.txt", "two"), ("3.jpg", png(3)), ("4.jpg", png(4))]
        table = read_table(write(tmp_path / "a.tar", members))
        with pytest.raises(DataError) as caught:
            understand(table, BOTH)
        assert str(caught.value).startswith(f"{tmp_path / 'a.tar'}: 1: the image is empty. (3 of 4 rows")
        reading = understand(table, BOTH, skip_bad_items=True)
        assert (reading.skipped, reading.dataset.columns[1].shown(0)) == (3, f"{tmp_path / 'a.tar'}: 2.jpg")

    def test_an_image_that_cannot_be_read(self, tmp_path: Path) -> None:
        members = [("1.jpg", png(1)), ("1.cls", "0"), ("2.jpg", b"no image"), ("2.cls", "1")]
        dataset = understand(read_table(write(tmp_path / "a.tar", members)), IMAGES).dataset
        with pytest.raises(DataError, match=r'^The image ".*a\.tar: 2\.jpg" cannot be read: it is in no image format'):
            usable(dataset, skip_bad_items=False)
        kept, skipped = usable(dataset, skip_bad_items=True)
        assert (kept.labels, skipped) == (["0"], 1)
