from __future__ import annotations

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
    assert [str(item) for item in items] == [str(column.items[row]) for row in (3, 0, 0)]
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
        ((TEXTS,), None, "one column and labels, or two columns and none"),
        ((TEXTS, TEXTS), ["x"] * 4, "one column and labels, or two columns and none"),
        ((TEXTS, TEXTS, TEXTS), None, "one column and labels, or two columns and none"),
        ((), ["x"], "one column and labels, or two columns and none"),
        ((TEXTS,), ["x"] * 3, r"The columns of my\.csv have different lengths: \[3, 4\]"),
        ((TEXTS, Column("b", "text", ["p"])), None, r"different lengths: \[1, 4\]"),
        ((Column("text", "text", []),), [], r"^my\.csv holds no items\.$"),
        ((Column("a", "text", []), Column("b", "text", [])), None, r"^my\.csv holds no items\.$"),
    ],
)
def test_refuses_what_does_not_go_together(columns: tuple[Column, ...], labels: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(columns, labels, source="my.csv")
