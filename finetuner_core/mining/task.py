"""What asks, what there is to find, and which of it must never be taken for a negative."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from finetuner_core.data.dataset import PLURAL, Cells, Column, Dataset
from finetuner_core.data.known import numbered, ranges
from finetuner_core.errors import DataError
from finetuner_core.values import SIDES, Side

Places = tuple[np.ndarray, np.ndarray]
"""Two int64 arrays of equal length: queries, and documents."""


class Barred(Protocol):
    """The pairs of a query and a document that are known not to be negatives."""

    def within(self, queries: range, documents: range) -> Places:
        """Those among some queries and some documents, as places within the two ranges."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """SHA-256 over them."""
        ...


class BarredPairs:
    """Pairs that are listed.

    Args:
        queries: the query of each pair, int64 (P,).
        documents: its document, int64 (P,).
        count: how many documents there are.
    """

    def __init__(self, queries: np.ndarray, documents: np.ndarray, count: int) -> None:
        self.count = count
        self.keys = np.unique(queries * count + documents)

    def __len__(self) -> int:
        return len(self.keys)

    def fingerprint(self) -> str:
        """SHA-256 over them."""
        return hashlib.sha256(self.keys.tobytes()).hexdigest()

    def within(self, queries: range, documents: range) -> Places:
        """Those among some queries and some documents, as places within the two ranges."""
        first = np.asarray(queries, dtype=np.int64) * self.count
        start = np.searchsorted(self.keys, first + documents.start)
        end = np.searchsorted(self.keys, first + documents.stop)
        rows = np.repeat(np.arange(len(queries)), end - start)
        return rows, self.keys[ranges(start, end)] % self.count - documents.start


class BarredClasses:
    """Pairs of items of one class; the items are both queries and documents.

    Args:
        classes: the class of each item, int64 (N,).
    """

    def __init__(self, classes: np.ndarray) -> None:
        self.classes = classes

    def __len__(self) -> int:
        sizes = np.bincount(self.classes)
        return int((sizes * (sizes - 1)).sum())

    def fingerprint(self) -> str:
        """SHA-256 over them."""
        return hashlib.sha256(self.classes.tobytes()).hexdigest()

    def within(self, queries: range, documents: range) -> Places:
        """Those among some queries and some documents, as places within the two ranges."""
        own, others = self.classes[queries.start : queries.stop], self.classes[documents.start : documents.stop]
        rows, columns = np.nonzero(own[:, None] == others)
        return rows, columns


class Joined:
    """Items of several columns as if they stood in one; nothing is read before it is asked for.

    Args:
        columns: the columns, of one modality.
        rows: which of their items there are, counted through all columns.
    """

    def __init__(self, columns: Sequence[Column], rows: np.ndarray) -> None:
        self.columns = columns
        self.rows = rows
        self.starts = np.cumsum([0, *(len(column) for column in columns)])

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The items of some rows, in the order asked for."""
        wanted = self.rows[np.asarray(rows, dtype=np.int64)]
        owner = np.searchsorted(self.starts, wanted, side="right") - 1
        items: list[object] = [None] * len(wanted)
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            for place, item in zip(
                places, self.columns[number].take(wanted[places] - self.starts[number]), strict=True
            ):
                items[place] = item
        return items

    def select(self, rows: Sequence[int] | np.ndarray) -> Cells:
        """The same for many rows: nothing is read yet."""
        return Joined(self.columns, self.rows[np.asarray(rows, dtype=np.int64)])

    def identities(self) -> np.ndarray:
        """A number for each item: no two of them are equal."""
        return np.arange(len(self))


@dataclass(frozen=True)
class Task:
    """What is to be mined.

    Args:
        queries: what asks, no item twice.
        documents: what there is to find, no item twice.
        sides: what a model is told that queries and documents are.
        rows: for each row that can be written the query and its positive, a document.
        known: the pairs that are known to belong together.
        same: the pairs of a query and the document that is the same item.
        names: the headers of a row's first two columns.
        left_out: how many rows of the data cannot be mined for, and why.
    """

    queries: Column
    documents: Column
    sides: tuple[Side | None, Side | None]
    rows: Places
    known: Barred
    same: BarredPairs
    names: tuple[str, str]
    left_out: dict[str, int]

    @property
    def is_labelled(self) -> bool:
        """Whether queries and documents are the same items."""
        return self.sides == (None, None)


def task_of(dataset: Dataset, corpus: Sequence[Column] = (), seed: int = 0) -> Task:
    """What is to be mined of some data.

    Args:
        dataset: pairs, whose different anchors ask and whose different positives and hard negatives are found; or
            labelled items, each of which asks for the others.
        corpus: columns of more documents.
        seed: what the positive follows from that a labelled item is given.

    Raises:
        DataError: if the data are of another form, or nothing is left.
    """
    if dataset.form == "scored":
        raise DataError(
            f"{dataset.source} holds scored pairs, which do not say what belongs together.\n"
            "Negatives are mined for pairs (anchor,positive), for labelled items, or for queries with judgements."
        )
    modality = dataset.columns[-1].modality
    for column in corpus:
        if column.modality != modality:
            raise DataError(
                f"The corpus holds {PLURAL[column.modality]}, and {PLURAL[modality]} are found in {dataset.source}."
            )
    return _of_labelled(dataset, corpus, seed) if dataset.form == "labelled" else _of_pairs(dataset, corpus)


def _of_pairs(dataset: Dataset, corpus: Sequence[Column]) -> Task:
    anchors = dataset.columns[0]
    parts = [*dataset.columns[1:], *corpus]
    asked, *found = numbered((anchors, *parts))
    count = int(max(numbers.max() for numbers in (asked, *found))) + 1
    query_rows, query_of = _distinct(asked, count)
    document_rows, document_of = _distinct(np.concatenate(found), count)
    query, positive = query_of[asked], document_of[found[0]]
    # Whichever of the two the data call the anchor, they belong together.
    turned_query, turned_document = query_of[found[0]], document_of[asked]
    turned = (turned_query >= 0) & (turned_document >= 0) & (asked != found[0])
    same = document_of[asked[query_rows]]
    rows = np.flatnonzero(positive != same[query])
    _, first = np.unique(query[rows] * len(document_rows) + positive[rows], return_index=True)
    kept = rows[np.sort(first)]
    if not len(kept):
        raise DataError(f"{dataset.source}: every positive is equal to its anchor, so there is nothing to look for.")
    known = BarredPairs(
        np.concatenate([query[rows], turned_query[turned]]),
        np.concatenate([positive[rows], turned_document[turned]]),
        len(document_rows),
    )
    return Task(
        queries=anchors.select(query_rows),
        documents=Column(parts[0].name, parts[0].modality, Joined(parts, document_rows)),
        sides=(SIDES[0], SIDES[1]),
        rows=(query[kept], positive[kept]),
        known=known,
        same=BarredPairs(np.flatnonzero(same >= 0), same[same >= 0], len(document_rows)),
        names=("anchor", "positive") if anchors.modality == parts[0].modality else ("text", "image"),
        left_out={
            "rows whose positive is equal to their anchor": len(dataset) - len(rows),
            "rows that stood there before": len(rows) - len(kept),
        },
    )


def _of_labelled(dataset: Dataset, corpus: Sequence[Column], seed: int) -> Task:
    if corpus:
        raise DataError("A corpus has no labels, so that nothing says which of it belongs to a labelled item.")
    (column,) = dataset.columns
    numbers, classes = column.identities, dataset.classes
    first, _ = _distinct(numbers, int(numbers.max()) + 1)
    # What is known under two labels is a negative of neither, and of what else cannot be told.
    doubtful = np.zeros(len(first), bool)
    doubtful[numbers[classes != classes[first][numbers]]] = True
    kept = first[~doubtful]
    _, own = np.unique(classes[kept], return_inverse=True)
    order, sizes = np.argsort(own, kind="stable"), np.bincount(own)
    starts = np.cumsum(sizes) - sizes
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - starts[own[order]]
    asking = np.flatnonzero(sizes[own] > 1)
    if not len(asking) or len(sizes) < 2:
        raise DataError(
            f"{dataset.source}: negatives need two labels or more, and a label with two different items or more."
        )
    other = np.random.default_rng(seed).integers(0, sizes[own[asking]] - 1)
    other += other >= place[asking]
    items = Column(column.name, column.modality, Joined((column,), kept))
    return Task(
        queries=items,
        documents=items,
        sides=(None, None),
        rows=(asking, order[starts[own[asking]] + other]),
        known=BarredClasses(own),
        same=BarredPairs(np.arange(len(kept)), np.arange(len(kept)), len(kept)),
        names=("anchor", "positive"),
        left_out={
            "items that stood there before": len(dataset) - len(first),
            "items with more than one label": int(doubtful.sum()),
            "items whose label no other has": len(kept) - len(asking),
        },
    )


def _distinct(numbers: np.ndarray, count: int) -> Places:
    """The place where each different number is first, ascending; and for each number which of those it is, or -1."""
    _, first = np.unique(numbers, return_index=True)
    rows = np.sort(first)
    which = np.full(count, -1, np.int64)
    which[numbers[rows]] = np.arange(len(rows))
    return rows, which
