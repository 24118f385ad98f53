"""Parquet and Arrow against what Arrow itself wrote, and damaged files of both."""

from __future__ import annotations

import datetime
import decimal
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuner_core.data.formats import columnar
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError

no_pressure = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

Save = Callable[[pa.Table, Path], None]


def cells_of(table: Table, name: str) -> list[Any]:
    cells: Any = table.columns[name]
    return [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]


def save_file(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def save_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


FORMATS: dict[str, tuple[Save, Callable[[Path], Table]]] = {
    "parquet": (lambda table, path: pq.write_table(table, path, row_group_size=2), columnar.read_parquet),
    "file": (save_file, columnar.read_arrow),
    "stream": (save_stream, columnar.read_arrow),
    "feather": (
        lambda table, path: pyarrow.feather.write_feather(table, str(path), "uncompressed"),
        columnar.read_arrow,
    ),
    "packed": (lambda table, path: pyarrow.feather.write_feather(table, str(path), "zstd"), columnar.read_arrow),
}

# What is written, and the cells that are read of it where they are others.
CELLS: dict[str, tuple[pa.Array, list[Any] | None]] = {
    "text": (pa.array(["a", None, "ä"]), None),
    "large": (pa.array(["a", None, "ä"], pa.large_string()), None),
    "view": (pa.array(["a", None, "ä"], pa.string_view()), None),
    "dictionary": (pa.array(["x", "y", "x"]).dictionary_encode(), None),
    "number": (pa.array([1, None, 3]), None),
    "decimal": (pa.array([decimal.Decimal("1.20")] * 3), ["1.20"] * 3),
    "date": (pa.array([datetime.date(2020, 1, 2)] * 3), ["2020-01-02"] * 3),
    "bool": (pa.array([True, False, None]), None),
    "texts": (pa.array([["a"], [], None]), None),
    "image": (pa.array([{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.jpg"}, None]), [b"x", "a.jpg", None]),
    "unset": (pa.array([{"bytes": b"x", "path": None}] * 3), [b"x"] * 3),
    "struct": (pa.array([{"a": 1}, None, {"a": 2}]), None),
    "ragged": (pa.array([[1.0], [1.0, 2.0], None]), None),
    "vectors": (pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())), None),
    "fixed": (pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2)), None),
    "tensor": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2]] * 3, pa.list_(pa.float32(), 2))
        ),
        [[1, 2]] * 3,
    ),
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("form", FORMATS)
def test_cells_of_every_type(form: str, kind: str, tmp_path: Path) -> None:
    save, read = FORMATS[form]
    array, expected = CELLS[kind]
    save(pa.table({"first": ["p", "q", "r"], "cells": array}), tmp_path / "a")
    table = read(tmp_path / "a")
    assert [*table.columns] == ["first", "cells"]
    assert cells_of(table, "cells") == (array.to_pylist() if expected is None else expected)
    assert table.where(1) == f"{tmp_path / 'a'}, row 1"
    assert isinstance(table.columns["cells"], np.ndarray) == (kind in ("vectors", "fixed", "tensor"))


@pytest.mark.parametrize("form", FORMATS)
def test_dictionaries_that_differ_from_part_to_part(form: str, tmp_path: Path) -> None:
    save, read = FORMATS[form]
    parts = [pa.array(cells).dictionary_encode() for cells in (["x", "y"], ["y", "z"], ["z"])]
    table = pa.table({"label": pa.chunked_array(parts)})
    save(table if form in ("parquet", "stream") else table.unify_dictionaries(), tmp_path / "a")
    assert cells_of(read(tmp_path / "a"), "label") == ["x", "y", "y", "z", "z"]


def test_what_is_not_packed_stays_in_the_file(tmp_path: Path) -> None:
    table = pa.table({"text": ["a" * 1000] * 10_000})
    for form in ("file", "stream", "feather"):
        FORMATS[form][0](table, tmp_path / form)
        before = pa.total_allocated_bytes()
        read = columnar.read_arrow(tmp_path / form)
        assert pa.total_allocated_bytes() - before < 1_000_000, form
        assert len(read) == 10_000


@pytest.mark.parametrize("form", ["parquet", "packed"])
def test_what_is_packed_is_unpacked_outside_of_memory(form: str, tmp_path: Path) -> None:
    texts = [f"{number} " * 200 for number in range(20_000)]
    FORMATS[form][0](pa.table({"text": texts}), tmp_path / form)
    before = pa.total_allocated_bytes()
    read = FORMATS[form][1](tmp_path / form)
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert cells_of(read, "text") == texts


def test_the_names_of_rows_are_no_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "__index_level_0__": [3]}), tmp_path / "a.parquet")
    assert [*columnar.read_parquet(tmp_path / "a.parquet").columns] == ["text"]


@pytest.mark.parametrize("form", FORMATS)
def test_empty_and_repeated(form: str, tmp_path: Path) -> None:
    save, read = FORMATS[form]
    save(pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.int8())}), tmp_path / "a")
    with pytest.raises(DataError, match=r"a has columns \(a, b\) and no rows\."):
        read(tmp_path / "a")
    if form not in ("feather", "packed"):
        save(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), tmp_path / "b")
        with pytest.raises(DataError, match='b has two columns "x"'):
            read(tmp_path / "b")


def whole(form: str, path: Path) -> bytes:
    FORMATS[form][0](pa.table({name: array for name, (array, _) in CELLS.items() if name != "tensor"}), path)
    return path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_cut_short(form: str, tmp_path: Path) -> None:
    content = whole(form, tmp_path / "a")
    # A stream whose end mark alone is missing is still whole.
    for length in {0, 1, 4, 10, len(content) // 3, len(content) // 2, len(content) - 100}:
        (tmp_path / "a").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a cannot be read as (Arrow|Parquet): .*\nIt is damaged, or not whole\."):
            FORMATS[form][1](tmp_path / "a")


@settings(parent=no_pressure, max_examples=60)
@given(st.sampled_from([*FORMATS]), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=3))
def test_damaged_bytes_are_a_table_or_refused(tmp_path: Path, form: str, damage: list[tuple[float, bytes]]) -> None:
    content = bytearray(whole(form, tmp_path / "a"))
    for place, piece in damage:
        start = int(place * (len(content) - 1))
        content[start : start + len(piece)] = piece
    (tmp_path / "a").write_bytes(content)
    message = ""
    try:
        table = FORMATS[form][1](tmp_path / "a")
        # Every cell can be read: nothing points to where nothing is.
        assert all(len(cells_of(table, name)) == len(table) for name in table.columns)
    except DataError as error:
        message = str(error)
    assert message.count("\n") <= 1


@settings(parent=no_pressure, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([b"", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"]))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes, start: bytes) -> None:
    (tmp_path / "a").write_bytes(start + content + start[:4])
    for read in (columnar.read_parquet, columnar.read_arrow):
        with pytest.raises(DataError, match=r"^.*\n.*$|^.*$"):
            read(tmp_path / "a")


class TestSavedDatasets:
    """The layout that `save_to_disk` writes, by hand: the library need not be there."""

    def save(self, folder: Path, shards: list[pa.Table]) -> Path:
        folder.mkdir(parents=True)
        names = [f"data-{place:05}-of-{len(shards):05}.arrow" for place in range(len(shards))]
        for name, shard in zip(names, shards, strict=True):
            save_stream(shard, folder / name)
        (folder / "dataset_info.json").write_text("{}")
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        return folder

    def test_several_files_are_one_table(self, tmp_path: Path) -> None:
        shards = [pa.table({"text": ["a", "b"]}), pa.table({"text": ["c"]})]
        folder = self.save(tmp_path / "saved", shards)
        assert columnar.is_saved_dataset(folder)
        assert not columnar.is_saved_dataset(tmp_path)
        assert cells_of(columnar.read_saved_dataset(folder), "text") == ["a", "b", "c"]

    def test_splits(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            self.save(tmp_path / "saved" / split, [pa.table({"text": [split]})])
        described = tmp_path / "saved" / "dataset_dict.json"
        described.write_text('{"splits": ["train", "test"]}')
        assert columnar.is_saved_dataset(tmp_path / "saved")
        with pytest.raises(DataError, match=r"splits train, test; which one\?\nGive one of them: \S+/train or "):
            columnar.read_saved_dataset(tmp_path / "saved")
        described.write_text('{"splits": ["test"]}')
        assert cells_of(columnar.read_saved_dataset(tmp_path / "saved"), "text") == ["test"]

    def test_what_is_not_whole(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "saved", [pa.table({"text": ["a"]}), pa.table({"other": ["b"]})])
        with pytest.raises(DataError, match="saved cannot be read as a saved data set: Schema at index 1"):
            columnar.read_saved_dataset(folder)
        (folder / "data-00001-of-00002.arrow").unlink()
        with pytest.raises(DataError, match=r'saved is not whole: there is no "data-00001-of-00002\.arrow"'):
            columnar.read_saved_dataset(folder)
        (folder / "data-00000-of-00002.arrow").write_bytes(b"")
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00002.arrow"}]}')
        with pytest.raises(DataError, match=r"data-00000-of-00002\.arrow cannot be read as Arrow"):
            columnar.read_saved_dataset(folder)
        for content in ("[", "[]", "{}", '{"_data_files": 3}', "[" * 100_000):
            (folder / "state.json").write_text(content)
            with pytest.raises(DataError, match=r"state\.json cannot be read as what save_to_disk writes"):
                columnar.read_saved_dataset(folder)
        (folder / "state.json").write_text('{"_data_files": []}')
        with pytest.raises(DataError, match="saved has no rows"):
            columnar.read_saved_dataset(folder)

    def test_files_outside_of_the_folder_are_not_read(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "saved", [pa.table({"text": ["a"]})])
        save_stream(pa.table({"text": ["secret"]}), tmp_path / "other.arrow")
        (folder / "state.json").write_text('{"_data_files": [{"filename": "../other.arrow"}]}')
        with pytest.raises(DataError, match=r'there is no "other\.arrow"'):
            columnar.read_saved_dataset(folder)


class TestNames:
    @pytest.mark.parametrize("name", ["datasets:", "datasets:a::b", "datasets:a:b:c:d"])
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(DataError, match=rf'"{name}" is no data set\.\nA name is datasets:NAME:SPLIT'):
            columnar.read_named(name)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"is read by the library datasets\.\nInstall it: pip install datasets"):
            columnar.read_named("datasets:some/name")
