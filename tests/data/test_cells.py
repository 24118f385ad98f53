"""Cells that are read where they lie are what a list of them would be."""

from __future__ import annotations

import pytest

from finetuner_core.data.dataset import Cells, Column, number

pa = pytest.importorskip("pyarrow")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from finetuner_core.data import cells as lazy  # noqa: E402
from finetuner_core.data.cells import ArrowCells, Hashed  # noqa: E402
from finetuner_core.data.known import numbered  # noqa: E402

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


@pytest.mark.parametrize("name", ["texts", "numbers", "bytes"])
@pytest.mark.parametrize("limit", ["_AT_ONCE", "_BYTES"])
def test_the_hash_of_a_cell_is_that_of_what_it_holds(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, limit, 3)
    cells = chunked(VALUES[name], 2)
    assert isinstance(cells, Hashed)
    assert cells.hashes().tolist() == [hash(value) for value in VALUES[name]]


def test_lists_are_equal_where_their_cells_are() -> None:
    assert chunked(VALUES["lists"], 2).identities().tolist() == [0, 1, 0, 2, 3, 4, 1]


def test_hashes_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    take = ArrowCells.take

    def counted(cells: ArrowCells, rows: range) -> list[object]:
        read.extend(rows)
        return take(cells, rows)

    monkeypatch.setattr(ArrowCells, "take", counted)
    cells = chunked(VALUES["texts"], 2)
    before, expected = cells.select([6, 1]), [hash(value) for value in VALUES["texts"]]
    cells.identities()
    for _ in range(2):
        assert cells.hashes().tolist() == expected
        assert cells.select([6, 0, 6]).hashes().tolist() == [expected[row] for row in (6, 0, 6)]
        assert cells.select([6, 5]).select([1]).identities().tolist() == [0]
    assert read == [*range(len(expected))]
    # What was chosen before anything was hashed reads its own cells, and those once.
    assert before.hashes().tolist() == before.hashes().tolist() == [expected[6], expected[1]]
    assert len(read) == len(expected) + 2


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=9, max_size=9), min_size=1, max_size=4),
    st.lists(st.integers(0, 8), min_size=1, max_size=9),
    st.data(),
)
def test_columns_of_any_cells_are_numbered_together(
    table: list[list[str]], rows: list[int], data: st.DataObject
) -> None:
    """Lazy columns, some of their rows and plain lists, against a dictionary over all cells."""
    columns, values = [], []
    for texts in table:
        kind = data.draw(st.sampled_from(["list", "whole", "some", "some of what was hashed"]))
        cells = chunked([*texts], 2)
        if kind == "some of what was hashed":
            cells.hashes()
        chosen = [texts[row] for row in rows] if kind.startswith("some") else texts
        items = texts if kind == "list" else cells.select(rows) if kind.startswith("some") else cells
        columns.append(Column("text", "text", items))
        values.append(chosen)
    known: dict[str, int] = {}
    expected = [[known.setdefault(text, len(known)) for text in texts] for texts in values]
    assert [numbers.tolist() for numbers in numbered(columns)] == expected


@given(st.lists(st.integers(0, 99), max_size=12), st.integers(1, 9))
def test_cells_that_lie_near_or_far(rows: list[int], size: int) -> None:
    values: list[object] = [str(row) for row in range(100)]
    assert chunked(values, size).take(rows) == [values[row] for row in rows]
