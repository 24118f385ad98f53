"""Data in the forms that models are trained on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, cast, runtime_checkable

import numpy as np

from finetuner_core.data.cells import number_hashes
from finetuner_core.errors import DataError
from finetuner_core.values import SIDES, Modality, Side

Form = Literal["labelled", "pairs", "scored"]

PLURAL: dict[Modality, str] = {"text": "texts", "image": "images", "vector": "vectors"}


@runtime_checkable
class Cells(Protocol):
    """Items that are read from where they lie when they are asked for, such as those of a memory-mapped file."""

    def __len__(self) -> int: ...

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The items of some rows, in the order asked for."""
        ...

    def select(self, rows: Sequence[int] | np.ndarray) -> Cells:
        """The same for many rows: nothing is read yet."""
        ...

    def identities(self) -> np.ndarray:
        """A number for each item, int64 (N,), equal where the items are equal, in the order of first appearance."""
        ...


@dataclass(frozen=True)
class Column:
    """Items of one modality.

    Args:
        name: the header it had.
        modality: what its items are.
        items: texts, images (paths, `PIL.Image.Image`), or an array (N, D) of vectors; a list, or lazy `Cells`.
    """

    name: str
    modality: Modality
    items: Sequence[object] | Cells | np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Sequence[int] | np.ndarray) -> Sequence[object]:
        """The items of some rows, in the order asked for."""
        if isinstance(self.items, np.ndarray):
            return cast("Sequence[object]", self.items[np.asarray(rows, dtype=np.int64)])
        if isinstance(self.items, Cells):
            return self.items.take(rows)
        return [self.items[row] for row in rows]

    def select(self, rows: Sequence[int] | np.ndarray) -> Column:
        """The column of some rows, in the order asked for."""
        items = self.items.select(rows) if isinstance(self.items, Cells) else self.take(rows)
        return replace(self, items=items)

    def shown(self, row: int) -> str:
        """One item for a message: a text, the path of an image, how large one in memory is, the start of a vector."""
        (item,) = self.take([row])
        if self.modality == "vector":
            numbers = np.asarray(item)
            return f"{', '.join(f'{number:.4g}' for number in numbers[:4].tolist())}{', ...' * (len(numbers) > 4)}"
        if isinstance(item, bytes):
            return f"an image of {len(item):,} bytes"
        return str(getattr(item, "filename", "") or item)

    @cached_property
    def identities(self) -> np.ndarray:
        """A number for each item, int64 (N,), equal where the items are equal, in the order of first appearance.

        Texts are equal by their letters, images by where they are read from, vectors by their bits. A picture in memory
        is equal to itself alone.
        """
        if isinstance(self.items, Cells):
            return self.items.identities()
        if isinstance(self.items, np.ndarray):  # by 64 bits of a hash, so that no second copy of all is in memory
            hashes = np.fromiter((hash(vector.tobytes()) for vector in self.items), np.int64, len(self.items))
            return number_hashes(hashes).astype(np.int64)
        return number([item if isinstance(item, Hashable) else id(item) for item in self.items])


@dataclass(frozen=True)
class Dataset:
    """Data in one of three forms.

    `labelled`: one column and a label for each item; items with equal labels belong together.
    `pairs`: an anchor and its positive, that belong together row by row. Further columns are hard negatives: items that
    do not belong to the row's anchor although they look as if they did.
    `scored`: an anchor, and one or more candidates with a score for each: how near the two are, in whatever unit.

    Args:
        columns: one column, or two and more of equal length.
        labels: the label of each item, for labelled data.
        source: where it came from, for messages.
        scores: float32 (N, K) of the K columns after the first, for scored data.

    Raises:
        DataError: if the lengths differ or are 0, or the number of columns does not go with labels or scores.

    >>> Dataset((Column("text", "text", ["hi", "hello", "bye"]),), ["greet", "greet", "part"]).summary()
    '3 labelled texts in 2 classes'
    """

    columns: tuple[Column, ...]
    labels: Sequence[str] | None = None
    source: str = "the data"
    scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and (len(self.columns) != 1 or self.scores is not None):
            raise DataError("Labelled data has one column and labels.")
        if self.labels is None and len(self.columns) < 2:
            raise DataError("Data without labels has two columns or more: an anchor, and what belongs to it.")
        if self.scores is not None and self.scores.shape != (len(self), len(self.columns) - 1):
            raise DataError(
                f"Scores have the shape {self.scores.shape}; one for each of {len(self)} rows and "
                f"{len(self.columns) - 1} columns after the first is ({len(self)}, {len(self.columns) - 1})."
            )
        lengths = {len(column) for column in self.columns} | ({len(self.labels)} if self.labels is not None else set())
        if len(lengths) != 1:
            raise DataError(f"The columns of {self.source} have different lengths: {sorted(lengths)}.")
        if lengths == {0}:
            raise DataError(f"{self.source} holds no items.")

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def form(self) -> Form:
        """`labelled`, `pairs` or `scored`."""
        if self.labels is not None:
            return "labelled"
        return "pairs" if self.scores is None else "scored"

    @property
    def negatives(self) -> tuple[Column, ...]:
        """The columns of hard negatives, for pairs."""
        return self.columns[2:] if self.form == "pairs" else ()

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """For each column what its items are: the anchor asks, and what stands beside it is found."""
        query, document = SIDES
        return (None,) if self.labels is not None else (query, *(document for _ in self.columns[1:]))

    @cached_property
    def classes(self) -> np.ndarray:
        """For labelled data the class of each item, int64 (N,), numbered in order of appearance; else empty."""
        return number(() if self.labels is None else self.labels)

    def select(self, rows: Sequence[int] | np.ndarray) -> Dataset:
        """The data set of some rows, in the order asked for."""
        return replace(
            self,
            columns=tuple(column.select(rows) for column in self.columns),
            labels=None if self.labels is None else [self.labels[row] for row in rows],
            scores=None if self.scores is None else self.scores[np.asarray(rows, dtype=np.int64)],
        )

    def summary(self) -> str:
        """What it is, in a few words."""
        kinds = [column.modality for column in self.columns]
        if self.labels is not None:
            return f"{len(self):,} labelled {PLURAL[kinds[0]]} in {int(self.classes.max()) + 1:,} classes"
        what = f"{kinds[0]}-{kinds[1]} pairs" if kinds[0] != kinds[1] else f"pairs of {PLURAL[kinds[0]]}"
        if self.scores is not None:
            several = f" with {len(kinds) - 1} candidates" if len(kinds) > 2 else ""
            return f"{len(self):,} scored {what if not several else PLURAL[kinds[0]]}{several}"
        hard = len(self.negatives)
        return f"{len(self):,} {what}{f' with {hard} hard negative' + 's' * (hard > 1) if hard else ''}"


def number(items: Sequence[Hashable]) -> np.ndarray:
    """A number for each item, int64 (N,), equal where the items are equal, in the order of first appearance.

    >>> number(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    known: dict[Hashable, int] = {}
    return np.fromiter((known.setdefault(item, len(known)) for item in items), np.int64, len(items))
