"""Rows, columns and tables that are in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuner_core.data.formats import memory
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError


def read(data: object) -> Table:
    table = memory.read(data)
    assert table is not None
    return table


@given(st.lists(st.fixed_dictionaries({"text": st.text(), "label": st.integers()}), min_size=1))
def test_rows_and_columns_are_the_same(rows: list[dict[str, object]]) -> None:
    columns = {name: [row[name] for row in rows] for name in ("text", "label")}
    assert read(rows).columns == read(tuple(rows)).columns == read(columns).columns == columns


def test_an_arrow_table_is_not_copied() -> None:
    vectors = np.arange(200_000.0).reshape(-1, 2)
    data = pa.table(
        {"text": ["a text"] * len(vectors), "vectors": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 2)}
    )
    before = pa.total_allocated_bytes()
    columns: Mapping[str, Any] = read(data).columns
    assert pa.total_allocated_bytes() - before < 100_000
    assert list(columns["text"]) == ["a text"] * len(vectors)
    np.testing.assert_array_equal(columns["vectors"], vectors)
    assert list(read(pa.record_batch({"text": ["a", "b"]})).columns["text"]) == ["a", "b"]  # type: ignore[arg-type]


def test_whatever_hands_its_table_on_as_arrow() -> None:
    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"text": ["a"]}).__arrow_c_stream__(requested_schema)

    assert list(read(Frame()).columns["text"]) == ["a"]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="The data is a Int64Array that is no table: "):
        read(pa.array([1]))


def test_arrays_stay_arrays() -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.ones((2, 2))

    vectors = np.arange(4.0).reshape(2, 2)
    objects = np.array(["x", None], dtype=object)
    times = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")
    columns: Mapping[str, Any] = read(
        {"v": vectors, "t": Tensor(), "o": objects, "d": times, "a": pa.array(["x", None]), "r": range(2)}
    ).columns
    assert columns["v"] is vectors
    np.testing.assert_array_equal(columns["t"], np.ones((2, 2)))
    assert columns["o"] == ["x", None]
    assert list(columns["d"]) == ["2020-01-01", "2020-01-02"]
    assert list(columns["a"]) == ["x", None]
    assert columns["r"] == [0, 1]


def test_where_a_row_stands() -> None:
    assert read([{"text": "a"}]).where(3) == "the data, row 3"


class Stubborn:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("it is on a device")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data has no rows"),
        ({}, "the data has no columns"),
        ([{}], "the data has no columns"),
        ({"a": [], "b": []}, r"the data has columns \(a, b\) and no rows"),
        ({"a": ["x"], "b": ["x", "y"]}, r"the data has columns of different lengths: a 1, b 2\."),
        ([{"a": 1}, {"a": 2}, {"b": 3}], "the data, row 2 has the keys b, where the first row has a"),
        ([{"a": 1}, {}], "the data, row 1 has the keys none, where the first row has a"),
        ([{"a": 1}, "x"], 'the data, row 1 is "x", and no mapping'),
        ({"a": "xyz"}, r'the column "a" is of type str\. Give a list or an array\.'),
        ({"a": 3}, 'the column "a" is of type int'),
        ({"a": (x for x in "ab")}, 'the column "a" is of type generator'),
        ({"a": np.float32(3)}, r'the column "a" is the single "3\.0"'),
        ({"a": Stubborn()}, r'the column "a" is a Stubborn that is no array: it is on a device'),
        ({1: ["x"], "1": ["y"]}, 'the data has two columns "1"'),
        (pa.table({"a": pa.array([], pa.string())}), r"the data has columns \(a\) and no rows"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), 'the data has two columns "x"'),
    ],
)
def test_what_does_not_go_together_is_refused(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        memory.read(data)


@pytest.mark.parametrize("data", [3, None, ["a", "b"], [1, {"a": 2}], "a.csv", np.ones(3), {1, 2}])
def test_what_is_no_table(data: object) -> None:
    assert memory.read(data) is None


def test_no_library_is_imported_to_tell_what_is_given() -> None:
    code = (
        "import sys; from finetuner_core.data.formats import memory; memory.read([{'a': 1}]);"
        "print({'pandas', 'datasets', 'pyarrow', 'torch'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
