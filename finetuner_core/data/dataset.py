"""Items with labels, or pairs of items: what training and evaluation are given."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from finetuner_core.errors import DataError
from finetuner_core.values import SIDES, Modality, Side

if TYPE_CHECKING:
    import numpy as np

Form = Literal["labelled", "pairs"]

_PLURAL: dict[Modality, str] = {"text": "texts", "image": "images", "vector": "vectors"}


@dataclass(frozen=True)
class Column:
    """Items of one modality.

    Args:
        name: the header it had.
        modality: what its items are.
        items: texts, paths of images (or images), or an array (N, D) of vectors.
    """

    name: str
    modality: Modality
    items: Sequence[object] | np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Sequence[int]) -> Sequence[object]:
        """The items of some rows, in the order asked for."""
        if self.modality == "vector":
            import numpy as np

            return cast("Sequence[object]", np.asarray(self.items)[list(rows)])
        return [self.items[row] for row in rows]

    def identities(self) -> list[int]:
        """A number for each item, equal where the items are equal: texts by their letters, images by their path."""
        known: dict[Hashable, int] = {}
        if self.modality == "vector":
            return [known.setdefault(vector.tobytes(), len(known)) for vector in cast("np.ndarray", self.items)]
        # An image that is no path is equal to itself alone.
        keys = (item if isinstance(item, Hashable) else id(item) for item in self.items)
        return [known.setdefault(key, len(known)) for key in keys]


@dataclass(frozen=True)
class Dataset:
    """Data in one of two forms.

    `labelled`: one column and a label for each item; items with equal labels belong together.
    `pairs`: two columns of equal length, anchor and positive, that belong together row by row.

    Args:
        columns: one column, or two.
        labels: the label of each item, `None` for pairs.
        source: where it came from, for messages.

    Raises:
        DataError: if the lengths differ or are 0, or the number of columns does not go with the labels.

    >>> Dataset((Column("text", "text", ["hi", "hello", "bye"]),), ["greet", "greet", "part"]).summary()
    '3 labelled texts in 2 classes'
    """

    columns: tuple[Column, ...]
    labels: Sequence[str] | None = None
    source: str = "the data"

    def __post_init__(self) -> None:
        if len(self.columns) != (2 if self.labels is None else 1):
            raise DataError("A data set has one column and labels, or two columns and none.")
        lengths = {len(column) for column in self.columns} | ({len(self.labels)} if self.labels is not None else set())
        if len(lengths) != 1:
            raise DataError(f"The columns of {self.source} have different lengths: {sorted(lengths)}.")
        if lengths == {0}:
            raise DataError(f"{self.source} holds no items.")

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def form(self) -> Form:
        """`labelled` or `pairs`."""
        return "pairs" if self.labels is None else "labelled"

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """For each column what its items are: of pairs the anchor asks, and the positive is found."""
        return SIDES if self.labels is None else (None,)

    @property
    def classes(self) -> list[int]:
        """For labelled data the class of each item, numbered in order of appearance."""
        known: dict[str, int] = {}
        return [known.setdefault(label, len(known)) for label in (() if self.labels is None else self.labels)]

    def take(self, rows: Sequence[int]) -> Dataset:
        """The data set of some rows, in the order asked for."""
        columns = tuple(replace(column, items=column.take(rows)) for column in self.columns)
        return replace(self, columns=columns, labels=None if self.labels is None else [self.labels[i] for i in rows])

    def summary(self) -> str:
        """What it is, in a few words."""
        kinds = [column.modality for column in self.columns]
        if self.labels is not None:
            return f"{len(self):,} labelled {_PLURAL[kinds[0]]} in {len(set(self.labels)):,} classes"
        what = f"{kinds[0]}-{kinds[1]} pairs" if kinds[0] != kinds[1] else f"pairs of {_PLURAL[kinds[0]]}"
        return f"{len(self):,} {what}"
