"""Archives of arrays against what numpy reads of them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.formats import arrays
from finetuner_core.data.tables import read_table
from finetuner_core.errors import DataError


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_reads_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    vectors = np.arange(6.0).reshape(3, 2)
    np.savez(path, vectors=vectors, labels=np.array(["a", "b", "a"]), version=np.array(3))
    table = arrays.read(path)
    assert list(table.columns) == ["vectors", "labels"]
    assert np.array_equal(np.asarray(table.columns["vectors"]), vectors)
    assert np.asarray(table.columns["labels"]).tolist() == ["a", "b", "a"]
    assert len(table) == 3
    assert table.where(1) == f"{path}, row 1"


def test_never_unpickles(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    harmful = np.array([Malicious(mark), None], dtype=object)
    in_archive, bare = tmp_path / "archive.npz", tmp_path / "bare.npz"
    np.savez(in_archive, vectors=np.zeros((2, 2)), labels=harmful)
    bare.write_bytes(pickle.dumps(harmful))
    for path in (in_archive, bare):
        with pytest.raises(DataError, match=f"^{path} "):
            arrays.read(path)
    assert not mark.exists()
    # It would have, had it been asked to: the test can fail.
    np.load(in_archive, allow_pickle=True)["labels"]
    assert mark.exists()


def test_says_how_to_save_labels_that_are_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=np.array(["a", "b"], dtype=object))
    with pytest.raises(DataError, match=r"labels\.astype\(str\)"):
        arrays.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"vectors": np.zeros((3, 2)), "labels": np.zeros(2)},
            "must have one length, not {'vectors': 3, 'labels': 2}",
        ),
        ({"version": np.array(1)}, "must have one length, not none"),
        ({}, "must have one length, not none"),
        ({"vectors": np.zeros((0, 2))}, "has arrays (vectors) and no rows."),
    ],
)
def test_needs_arrays_of_one_length(tmp_path: Path, given: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **given)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        arrays.read(tmp_path / "a.npz")
    assert message in str(caught.value)


def test_a_damaged_archive_is_a_data_error_whatever_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    vectors = np.random.default_rng(0).normal(size=(40, 4)).round(1)
    np.savez_compressed(path, vectors=vectors, labels=np.arange(40))
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + b"\xff\xff" + whole[at + 2 :]):
            path.write_bytes(damaged)
            try:
                table = arrays.read(path)
            except DataError:
                refused += 1
            else:
                # What is not part of the arrays (a date, an attribute) may differ, and numbers may not.
                assert np.array_equal(np.asarray(table.columns["vectors"]), vectors)
    assert refused > len(whole) // 7


def test_refuses_what_is_no_archive_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"is no \.npz archive"):
        arrays.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table.csv", "text\na\n")
    with pytest.raises(DataError, match="must have one length, not none"):
        arrays.read(path)


def as_written(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name])


def is_mapped(array: object) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


class TestMapped:
    @pytest.mark.parametrize(
        "array",
        [
            np.arange(12, dtype=np.float32).reshape(4, 3),
            np.arange(12, dtype=np.float16).reshape(4, 3),
            np.arange(12, dtype=">f8").reshape(4, 3),
            np.asfortranarray(np.arange(12.0).reshape(4, 3)),
            np.arange(4),
            np.array(["a", "猫", "", "dog"]),
            np.array([True, False, True, True]),
        ],
        ids=lambda array: f"{array.dtype.str}-{array.ndim}",
    )
    @pytest.mark.parametrize("before", ["", "v", "a longer name of another array"])
    def test_is_what_numpy_reads(self, tmp_path: Path, array: np.ndarray, before: str) -> None:
        path, packed = tmp_path / "a.npz", tmp_path / "packed.npz"
        given = ({before: np.arange(4)} if before else {}) | {"x": array}
        np.savez(path, **given)
        np.savez_compressed(packed, **given)
        found, unpacked = arrays.read(path).columns["x"], arrays.read(packed).columns["x"]
        assert is_mapped(found)
        assert not is_mapped(unpacked)
        for read in (found, unpacked):
            assert isinstance(read, np.ndarray)
            assert read.dtype == array.dtype
            assert np.array_equal(read, as_written(path, "x"))

    def test_texts_of_one_byte_a_letter_are_texts(self, tmp_path: Path) -> None:
        np.savez(
            tmp_path / "a.npz", labels=np.array([b"cat", "größe".encode()]), day=np.array(["2020-01-02"] * 2, "M8")
        )
        columns = arrays.read(tmp_path / "a.npz").columns
        assert np.asarray(columns["labels"]).tolist() == ["cat", "größe"]
        assert np.asarray(columns["day"]).tolist() == ["2020-01-02"] * 2

    def test_cannot_be_changed(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", vectors=np.zeros((2, 2)))
        vectors = np.asarray(arrays.read(tmp_path / "a.npz").columns["vectors"])
        with pytest.raises(ValueError, match="read-only"):
            vectors[0] = 1

    def test_bytes_that_were_changed_are_found(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, vectors=np.random.default_rng(0).normal(size=(40, 4)), labels=np.arange(40))
        whole = path.read_bytes()
        expected = {name: as_written(path, name) for name in ("vectors", "labels")}
        refused = 0
        for at in range(0, len(whole), 17):
            for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                path.write_bytes(damaged)
                try:
                    columns = arrays.read(path).columns
                except DataError:
                    refused += 1
                else:
                    # What is not part of the arrays (a date, the list at the end) may differ, and numbers may not.
                    assert "vectors" in columns or "labels" in columns
                    for name, column in columns.items():
                        assert np.array_equal(np.asarray(column), expected[name])
        assert refused > len(whole) // 17

    @pytest.mark.parametrize("shape", ["(3, 9)", "(3, 1)", "(2**40, 2**40)", "(-1, 2)", "(3, -2)"])
    def test_a_shape_that_says_more_or_less_than_there_is(self, tmp_path: Path, shape: str) -> None:
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }"
        header += " " * (117 - len(header)) + "\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(48)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("vectors.npy", content)
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            arrays.read(tmp_path / "a.npz")

    def test_an_archive_behind_other_bytes(self, tmp_path: Path) -> None:
        path, vectors = tmp_path / "a.npz", np.arange(6.0).reshape(3, 2)
        np.savez(path, vectors=vectors)
        path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
        assert np.array_equal(np.asarray(arrays.read(path).columns["vectors"]), vectors)

    @pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux how much memory there is")
    def test_costs_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, vectors=np.ones((200_000, 64), np.float32))  # 51 MB
        before = anonymous()
        table = arrays.read(path)
        assert len(table) == 200_000
        assert anonymous() - before < 5_000

    def test_an_npy_file_is_told_how_to_become_one(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.ones((2, 2)))
        with pytest.raises(DataError) as caught:
            read_table(tmp_path / "a.npy")
        assert str(caught.value) == (
            f"{tmp_path / 'a.npy'} is an array without a name.\n"
            'Name it: numpy.savez("a.npz", vectors=numpy.load("a.npy"))'
        )


def anonymous() -> int:
    """The memory of this process that stands for no file, in kilobytes."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("RssAnon:")[2].split()[0])
