"""Cells that are read where they lie are what a list of them would be."""

from __future__ import annotations

import pytest

from finetuner_core.data.dataset import Cells, number

pa = pytest.importorskip("pyarrow")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from finetuner_core.data.cells import ArrowCells  # noqa: E402

VALUES: dict[str, list[object]] = {
    "texts": ["b", "a", "b", None, "", "a", "ccc"],
    "numbers": [1.5, 2.0, 1.5, None, -0.0, 0.0, 7.0],
    "bytes": [b"x", b"", b"x", None, b"y", b"z", b"yy"],
    "lists": [["a", "b"], ["a"], ["a", "b"], None, [], ["b"], ["a"]],
}


def chunked(values: list[object], size: int) -> ArrowCells:
    kind = pa.array(values).type
    return ArrowCells(pa.chunked_array([pa.array(values[at : at + size], kind) for at in range(0, len(values), size)]))


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_they_are_what_the_list_is(name: str, size: int) -> None:
    values = VALUES[name]
    cells = chunked(values, size)
    assert isinstance(cells, Cells)
    assert list(cells) == values
    assert [cells[row] for row in range(-len(values), len(values))] == values * 2
    assert cells.take(range(2, 5)) == values[2:5]
    assert cells.take([6, 0, 0, 3]) == [values[row] for row in (6, 0, 0, 3)]
    with pytest.raises(IndexError):
        cells[len(values)]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9), st.data())
def test_some_of_some(rows: list[int], data: st.DataObject) -> None:
    values = VALUES["texts"]
    some = chunked(values, 2).select(rows)
    again = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    expected = [values[row] for row in rows]
    assert list(some) == expected
    assert list(some.select(again)) == [expected[row] for row in again]
    assert some.take(again) == [expected[row] for row in again]
    assert some.identities().tolist() == number([str(text) for text in expected]).tolist()


@pytest.mark.parametrize("name", ["texts", "numbers", "bytes"])
def test_equal_cells_have_one_number(name: str) -> None:
    assert chunked(VALUES[name], 2).identities().tolist() == number(VALUES[name]).tolist()


def test_images_as_data_sets_keep_them() -> None:
    cells = chunked([{"bytes": b"png", "path": None}, {"bytes": None, "path": "a.png"}], 1)
    assert list(cells) == [b"png", "a.png"]
    assert list(chunked([{"x": 1}], 1)) == [{"x": 1}]
