"""What is known of a batch beyond its labels: which of its pairs must be neither positive nor negative."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from finetuner_core.data.cells import Hashed, number_hashes
from finetuner_core.data.dataset import Column, Dataset

Rows = Sequence[int] | np.ndarray

# How many items are read at once where all of them are looked at.
_AT_ONCE = 65_536


class Known:
    """What belongs together in a data set, so that nothing that does is ever taken for a negative.

    A document belongs to a query if any row says so, whichever of the two it calls the anchor, or if it is the same
    text, image or vector. A pair of a batch that belongs together and is not the row's own is neither positive nor
    negative.

    It costs about 30 bytes a row and column. What is asked of it costs what the batch has, not what the data have.

    Args:
        dataset: data of any form; of scored data nothing is known but the scores.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.form = dataset.form
        # int32 (columns, N): a number for each item, equal where items are equal in whichever columns.
        self.items = np.stack(numbered(dataset.columns)) if self.form != "scored" else np.empty((0, 0), np.int32)
        self.count = int(self.items.max()) + 1 if self.items.size else 0
        self.classes = dataset.classes
        # For pairs what is known of each item, as a query: `documents[start[item] : start[item + 1]]`, ascending.
        keys = self._pairs() if self.form == "pairs" else np.empty(0, np.int64)
        self.documents = (keys % max(self.count, 1)).astype(np.int32)
        self.start = np.zeros(self.count + 1, np.int32 if len(keys) < 2**31 else np.int64)
        np.cumsum(np.bincount(keys // max(self.count, 1), minlength=self.count), out=self.start[1:])

    def _pairs(self) -> np.ndarray:
        """Each known pair once, as query * count + document, ascending."""
        query, document = self.items[0].astype(np.int64), self.items[1].astype(np.int64)
        # Only what stands on both sides can be known the other way round.
        asks, answers = np.zeros(self.count, bool), np.zeros(self.count, bool)
        asks[query], answers[self.items[1:]] = True, True
        turned = asks[document] & answers[query]
        keys = np.concatenate([query * self.count + document, document[turned] * self.count + query[turned]])
        return distinct(keys)

    def references(self, rows: Rows) -> np.ndarray:
        """What the items of a batch are compared with, as numbers over the whole data set, int64 (R,)."""
        items = self.items[:, np.asarray(rows)]
        return (items if self.form == "labelled" else items[1:]).ravel().astype(np.int64)

    def excluded(self, rows: Rows, remembered: np.ndarray | None = None) -> np.ndarray | None:
        """The pairs of a batch that must count as neither positive nor negative although their labels differ.

        Args:
            rows: the row numbers of the batch.
            remembered: further references, int64 (M,), by the numbers that `references` gave of them; -1 for none.

        Returns:
            For pairs bool (B, R + M), of anchors and of references: the positives, then each column of hard negatives.
            For labelled data bool (B, B + M). None where there is no such pair.
        """
        if self.form == "scored":
            return None
        items, others = self.items[0, np.asarray(rows)], self.references(rows)
        if remembered is not None:
            others = np.concatenate([others, remembered])
        if self.form == "labelled":
            return _repeated(items, others)
        anchors, references = self._beyond(items, others)
        if not len(anchors):
            return None
        excluded = np.zeros((len(items), len(others)), bool)
        excluded[anchors, references] = True
        return excluded

    def _beyond(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that belong together but for each row's own, as places of anchors and of references."""
        anchors, anchor_of = np.unique(items, return_inverse=True)
        documents, document_of = np.unique(others, return_inverse=True)
        query, found = self._joined(anchors, documents)
        # From different items to the places where they stand: first of documents, then of anchors.
        reference, query = _expanded(document_of, found, query)
        anchor, reference = _expanded(anchor_of, query, reference)
        other = anchor != reference
        return anchor[other], reference[other]

    def _joined(self, anchors: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where a document belongs to an anchor: two arrays of equal length, of places in what was given, ascending."""
        start, end = self.start[anchors], self.start[anchors + 1]
        # The own documents of an anchor are looked for among those of the batch; where they are more, it is turned.
        many = np.flatnonzero(end - start > len(documents))
        end_of_few = end.copy()
        end_of_few[many] = start[many]
        query = [np.arange(len(anchors)), np.repeat(np.arange(len(anchors)), end_of_few - start)]
        wanted = [anchors, self.documents[ranges(start, end_of_few)]]
        for anchor in many.tolist():
            own = self.documents[start[anchor] : end[anchor]]
            place = np.minimum(np.searchsorted(own, documents), len(own) - 1)
            inside = documents[own[place] == documents]
            query.append(np.full(len(inside), anchor))
            wanted.append(inside)
        items = np.concatenate(wanted)
        place = np.minimum(np.searchsorted(documents, items), len(documents) - 1)
        hit = documents[place] == items
        return np.concatenate(query)[hit], place[hit]

    def labels(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Labels for a loss that is told what is excluded.

        Args:
            rows: the row numbers of the batch.

        Returns:
            int64 (B,) and (R,): of the items, and of what they are compared with. A positive has the label of its
            anchor, and every hard negative one of its own.
        """
        if self.form == "labelled":
            return self.classes[np.asarray(rows)], self.classes[np.asarray(rows)]
        return np.arange(len(rows)), np.arange(len(rows) * max(1, len(self.items) - 1))

    def grouped(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Labels for a loss that cannot be told what is excluded: what belongs together has one label.

        Then nothing that belongs together is a negative, and some of it counts as positive. It is found within the
        batch alone: over a whole data set such chains can tie everything together. Labelled data keep their labels.

        Args:
            rows: the row numbers of the batch.

        Returns:
            int64 (B,) and (R,), as from `labels`.
        """
        labels, references = self.labels(rows)
        if self.form != "pairs":
            return labels, references
        size = len(labels)
        left, right = self._beyond(self.items[0, np.asarray(rows)], self.references(rows))
        left, right = np.concatenate([np.arange(size), left]), np.concatenate([np.arange(size), right])
        while True:
            # Both ends of a pair take the lower label of the two, until none changes.
            lower = np.minimum(labels[left], references[right])
            if (lower == labels[left]).all() and (lower == references[right]).all():
                return labels, references
            np.minimum.at(labels, left, lower)
            np.minimum.at(references, right, lower)


def _expanded(numbers: np.ndarray, wanted: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each number that is wanted all places where it stands, and as often what stands beside it."""
    places, counts = np.argsort(numbers, kind="stable"), np.bincount(numbers)
    end = np.cumsum(counts)[wanted]
    return places[ranges(end - counts[wanted], end)], np.repeat(beside, counts[wanted])


def _repeated(items: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """Where an item stands once more among the others, of which it is itself one: bool (B, R); None where none does."""
    if len(np.unique(others)) == len(others):
        return None
    same: np.ndarray = items[:, None] == others[None, :]
    np.fill_diagonal(same, False)
    return same


def ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The numbers from each start to before its end, one range after the other.

    >>> ranges(np.array([3, 8]), np.array([5, 11])).tolist()
    [3, 4, 8, 9, 10]
    """
    lengths = end - start
    before = np.cumsum(lengths) - lengths
    return np.repeat(start - before, lengths) + np.arange(int(lengths.sum()))


def numbered(columns: Sequence[Column]) -> list[np.ndarray]:
    """For each column a number for each item, int32 (N,), equal where items are equal in whichever columns.

    Items of different columns are compared by 64 bits of their hash, so that no column need be in memory: of a hundred
    million, the chance that any two are taken for equal is one in four thousand, and one pair would be masked for it.
    """
    numbers: dict[int, np.ndarray] = {}
    count = 0
    for modality in dict.fromkeys(column.modality for column in columns):
        places = [place for place, column in enumerate(columns) if column.modality == modality]
        if len(places) == 1:
            own = columns[places[0]].identities
            numbers[places[0]] = (own + count).astype(np.int32)
            count += int(own.max()) + 1
            continue
        hashes = [_hashes(columns[place]) for place in places]
        common = number_hashes(np.concatenate(hashes))
        ends = np.cumsum([len(each) for each in hashes])
        numbers.update(zip(places, np.split(common + np.int32(count), ends[:-1]), strict=True))
        count += int(common.max()) + 1
    return [numbers[place] for place in range(len(columns))]


def distinct(keys: np.ndarray) -> np.ndarray:
    """Each key once, ascending. The keys themselves are sorted in place: for millions it is faster than `np.unique`."""
    keys.sort()
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new]


def _hashes(column: Column) -> np.ndarray:
    """The hash of each item of a column, int64 (N,)."""
    if isinstance(column.items, Hashed):
        return column.items.hashes()
    # Identities are numbered in this order, so that each first one is higher than all before.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(column.identities), prepend=-1))
    hash_of = hash if column.modality == "text" else _hash
    different = (item for start in range(0, len(first), _AT_ONCE) for item in column.take(first[start:][:_AT_ONCE]))
    hashes: np.ndarray = np.fromiter(map(hash_of, different), np.int64, len(first))[column.identities]
    return hashes


def _hash(item: object) -> int:
    if isinstance(item, np.ndarray):
        return hash(item.tobytes())
    return hash(item) if isinstance(item, Hashable) else id(item)
