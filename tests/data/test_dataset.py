from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError

TEXTS = Column("text", "text", ["a", "b", "a", "c"])
VECTORS = Column("vectors", "vector", np.array([[1, 2], [3, 4], [1, 2], [1, 3]], dtype=np.float32))
PATHS = Column("image", "image", [Path("a.png"), Path("b.png"), Path("a.png"), Path("c.png")])


def test_labelled() -> None:
    data = Dataset((TEXTS,), ["x", "y", "x", "z"])
    assert (data.form, len(data), data.classes.tolist()) == ("labelled", 4, [0, 1, 0, 2])
    assert data.summary() == "4 labelled texts in 3 classes"


def test_pairs() -> None:
    assert Dataset((TEXTS, TEXTS)).summary() == "4 pairs of texts"
    assert Dataset((PATHS, PATHS)).summary() == "4 pairs of images"
    data = Dataset((TEXTS, PATHS))
    assert (data.form, data.classes.tolist(), data.summary()) == ("pairs", [], "4 text-image pairs")


def test_numbers_are_grouped() -> None:
    many = Column("text", "text", [str(i) for i in range(12_345)])
    assert Dataset((many,), many.items).summary() == "12,345 labelled texts in 12,345 classes"  # type: ignore[arg-type]


def test_labels_may_be_an_array() -> None:
    data = Dataset((VECTORS,), np.array([7, 8, 7, 7]))  # type: ignore[arg-type]
    assert data.classes.tolist() == [0, 1, 0, 0]
    assert data.select([1, 3]).classes.tolist() == [0, 1]


@pytest.mark.parametrize("column", [TEXTS, PATHS, VECTORS])
def test_take_keeps_the_order_asked_for(column: Column) -> None:
    data = Dataset((column,), ["x", "y", "x", "z"], source="my.csv")
    taken = data.select([3, 0, 0])
    items = taken.columns[0].items
    assert [str(item) for item in taken.columns[0].take(range(3))] == [str(item) for item in column.take([3, 0, 0])]
    assert (taken.labels, taken.source, len(taken)) == (["z", "x", "x"], "my.csv", 3)
    assert type(items) is type(column.items)
    assert len(data) == 4


def test_take_keeps_pairs_together() -> None:
    taken = Dataset((TEXTS, PATHS)).select([2, 1])
    assert [column.items for column in taken.columns] == [["a", "b"], [Path("a.png"), Path("b.png")]]


@pytest.mark.parametrize("column", [TEXTS, PATHS, VECTORS])
def test_equal_items_have_one_identity(column: Column) -> None:
    assert column.identities.tolist() == [0, 1, 0, 2]


def test_an_image_in_memory_is_equal_to_itself_alone() -> None:
    one, same = Image.new("L", (2, 2)), Image.new("L", (2, 2))
    assert Column("image", "image", [one, same, one]).identities.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ((TEXTS,), None, "Data without labels has two columns or more: an anchor, and what belongs to it"),
        ((TEXTS, TEXTS), ["x"] * 4, r"Labelled data has one column and labels\."),
        ((), None, "Data without labels has two columns or more"),
        ((), ["x"], r"Labelled data has one column and labels\."),
        ((TEXTS,), ["x"] * 3, r"The columns of my\.csv have different lengths: \[3, 4\]"),
        ((TEXTS, Column("b", "text", ["p"])), None, r"different lengths: \[1, 4\]"),
        ((Column("text", "text", []),), [], r"^my\.csv holds no items\.$"),
        ((Column("a", "text", []), Column("b", "text", [])), None, r"^my\.csv holds no items\.$"),
    ],
)
def test_refuses_what_does_not_go_together(columns: tuple[Column, ...], labels: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(columns, labels, source="my.csv")


def test_further_columns_are_hard_negatives() -> None:
    triplets, tuples = Dataset((TEXTS,) * 3), Dataset((TEXTS,) * 5)
    assert (triplets.form, triplets.negatives, triplets.sides) == ("pairs", (TEXTS,), ("query", "document", "document"))
    assert triplets.summary() == "4 pairs of texts with 1 hard negative"
    assert tuples.summary() == "4 pairs of texts with 3 hard negatives"
    assert Dataset((TEXTS, TEXTS)).negatives == ()


def test_scores_make_it_scored() -> None:
    pairs = Dataset((TEXTS, TEXTS), scores=np.arange(4, dtype=np.float32)[:, None])
    assert (pairs.form, pairs.negatives, pairs.summary()) == ("scored", (), "4 scored pairs of texts")
    assert Dataset((TEXTS, PATHS), scores=np.zeros((4, 1), np.float32)).summary() == "4 scored text-image pairs"
    several = Dataset((TEXTS,) * 4, scores=np.arange(12, dtype=np.float32).reshape(4, 3))
    assert (several.form, several.summary()) == ("scored", "4 scored texts with 3 candidates")
    taken = several.select([2, 0])
    assert taken.scores is not None
    assert taken.scores.tolist() == [[6, 7, 8], [0, 1, 2]]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (3, 2), (4, 3)])
def test_scores_must_be_one_for_each_candidate(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"Scores have the shape .* after the first is \(4, 2\)\."):
        Dataset((TEXTS, TEXTS, TEXTS), scores=np.zeros(shape, np.float32))


def test_labelled_data_has_no_scores() -> None:
    with pytest.raises(DataError, match="Labelled data has one column and labels"):
        Dataset((TEXTS,), ["x"] * 4, scores=np.zeros((4, 0), np.float32))


class Lazy:
    """Items that are read when they are asked for, and the rows that were read."""

    def __init__(self, items: list[str], read: list[int], rows: list[int] | None = None) -> None:
        self.all, self.read = items, read
        self.rows = list(range(len(items))) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        self.read += [self.rows[row] for row in rows]
        return [self.all[self.rows[row]] for row in rows]

    def select(self, rows: Sequence[int] | np.ndarray) -> Lazy:
        return Lazy(self.all, self.read, [self.rows[row] for row in rows])

    def identities(self) -> np.ndarray:
        return np.arange(len(self.rows))


def test_cells_are_read_when_they_are_asked_for() -> None:
    read: list[int] = []
    column = Column("text", "text", Lazy(["a", "b", "c", "d"], read))
    part = Dataset((column, column)).select([3, 1, 0]).columns[0]
    assert (read, len(part), part.identities.tolist()) == ([], 3, [0, 1, 2])
    assert (part.take([2, 0]), read) == (["a", "d"], [0, 3])


def test_items_are_shown_in_messages() -> None:
    assert [column.shown(2) for column in (TEXTS, PATHS, VECTORS)] == ["a", "a.png", "1, 2"]
    assert Column("v", "vector", np.arange(12.0).reshape(2, 6) / 3).shown(1) == "2, 2.333, 2.667, 3, ..."
    assert Column("image", "image", [b"12345"]).shown(0) == "an image of 5 bytes"
