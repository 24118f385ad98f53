"""Exact search, and at which ranks it finds what is relevant.

Neither all scores nor an order of them is ever held: a rank is one more than the number of documents that score
higher, and those are counted block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from finetuner_core.data.known import ranges
from finetuner_core.data.search_set import Judgements
from finetuner_core.errors import DataError

# Scores are held for so many queries and documents at a time: 16 MiB.
_QUERIES, _DOCUMENTS = 64, 1 << 16
# A block of queries has no more judgements than this, if it is not one query's.
_JUDGEMENTS = 1 << 18
# Comparing all scores with a threshold is so many times as fast as sorting them.
_SORTING = 512


class Relevance(Protocol):
    """What is relevant to each query."""

    @property
    def counts(self) -> np.ndarray:
        """How many judgements each query has, int64 (Q,)."""
        ...

    def take(self, queries: np.ndarray) -> Judgements:
        """The judgements of some queries."""
        ...


class SameLabel:
    """Labelled items are relevant to those of their own label, but for themselves.

    Args:
        classes: the class of each item, int64 (N,), from 0.
        queries: the positions of those that ask, int64 (Q,).
    """

    def __init__(self, classes: np.ndarray, queries: np.ndarray) -> None:
        self.queries, self.classes = queries, classes
        self.members = np.argsort(classes, kind="stable")
        self.ends = np.cumsum(np.bincount(classes))
        self.sizes = np.bincount(classes)

    @property
    def counts(self) -> np.ndarray:
        """How many others have the label of each query, int64 (Q,)."""
        counts: np.ndarray = self.sizes[self.classes[self.queries]] - 1
        return counts

    def take(self, queries: np.ndarray) -> Judgements:
        """Those others, with the grade 1."""
        items = self.queries[queries]
        own = self.classes[items]
        documents = self.members[ranges(self.ends[own] - self.sizes[own], self.ends[own])]
        documents = documents[documents != np.repeat(items, self.sizes[own])]
        offsets = np.concatenate([[0], np.cumsum(self.sizes[own] - 1)])
        return Judgements(offsets, documents, np.ones_like(documents))


class Found(NamedTuple):
    """At which ranks a block of queries found what is relevant to them.

    Args:
        query: for each relevant document which query of the block it was found for, int64 (R,), rising.
        ranks: its rank, int64 (R,), rising for each query; 1 is the first.
        grades: how relevant it is, int64 (R,), above 0.
        size: how many queries the block has; to some of them nothing may be relevant.
    """

    query: np.ndarray
    ranks: np.ndarray
    grades: np.ndarray
    size: int


def search(
    queries: np.ndarray,
    corpus: np.ndarray,
    relevance: Relevance,
    *,
    own: np.ndarray | None = None,
    tie_order: Callable[[], np.ndarray] | None = None,
) -> Iterator[Found]:
    """Searches the whole corpus for each query by cosine similarity.

    Memory is that of a few blocks whatever the corpus, which may be a `numpy.memmap`.

    Args:
        queries: float32 (Q, D), rows of length 1.
        corpus: float32 (N, D), rows of length 1.
        relevance: what is relevant to each query.
        own: int64 (Q,): for each query a document that it must not find: itself.
        tie_order: gives int64 (N,), the place of each document among those that score the same; asked where there are
            any. Where not given, they are ordered by position.

    Yields:
        What each block of queries found, in order.

    Raises:
        DataError: if the score of a relevant document is not a number.
    """
    counts = relevance.counts
    scores = np.empty((min(_QUERIES, len(queries)), min(_DOCUMENTS, len(corpus))), np.float32)
    place = _Places(len(corpus), tie_order)
    start = 0
    while start < len(queries):
        within = int(np.searchsorted(np.cumsum(counts[start : start + _QUERIES]), _JUDGEMENTS, "right"))
        end = min(start + max(1, within), len(queries))
        judgements = relevance.take(np.arange(start, end))
        relevant = judgements.grades > 0
        query, documents, grades = judgements.queries[relevant], judgements.documents[relevant], judgements.grades
        ranks = _ranks(
            queries[start:end], corpus, query, documents, None if own is None else own[start:end], place, scores
        )
        order = np.lexsort((ranks, query))
        yield Found(query, ranks[order], grades[relevant][order], end - start)
        start = end


class _Places:
    """The places of documents among those that score the same."""

    def __init__(self, count: int, order: Callable[[], np.ndarray] | None) -> None:
        self.count, self._order = count, order
        self._places: np.ndarray | None = None

    def of(self, documents: np.ndarray) -> np.ndarray:
        if self._order is None:
            return documents
        if self._places is None:
            self._places = self._order()
        places: np.ndarray = self._places[documents]
        return places


def _ranks(
    queries: np.ndarray,
    corpus: np.ndarray,
    query: np.ndarray,
    documents: np.ndarray,
    own: np.ndarray | None,
    places: _Places,
    buffer: np.ndarray,
) -> np.ndarray:
    """The rank of each relevant document, int64 (R,).

    The scores of the relevant documents come first, and then how many score higher. Both are read from the same
    products of the same blocks, since another product may differ in its last bits, and equal scores are compared.
    """
    starts = range(0, len(corpus), _DOCUMENTS)

    def multiply(start: int) -> np.ndarray:
        block = np.asarray(corpus[start : start + _DOCUMENTS])
        scores = buffer.reshape(-1)[: len(queries) * len(block)].reshape(len(queries), len(block))
        np.matmul(queries, block.T, out=scores)
        if own is not None:
            rows = np.flatnonzero((own >= start) & (own < start + len(block)))
            scores[rows, own[rows] - start] = -np.inf
        return scores

    wanted = np.empty(len(documents), np.float32)
    for start in starts:
        scores = multiply(start)
        inside = (documents >= start) & (documents < start + _DOCUMENTS)
        wanted[inside] = scores[query[inside], documents[inside] - start]
    if not np.isfinite(wanted).all():
        raise DataError("The model's vectors hold a NaN or an infinite value, so nothing can be searched with them.")
    ranks = np.ones(len(documents), np.int64)
    ends = np.searchsorted(query, np.arange(len(queries) + 1))
    asked = [
        (row, slice(begin, end), *np.unique(wanted[begin:end], return_inverse=True))
        for row, (begin, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        if end > begin
    ]
    for start in reversed(starts):
        if start != starts[-1]:  # which is still there
            scores = multiply(start)
        for row, own_part, thresholds, group in asked:
            higher, equal = _count(scores[row], thresholds)
            ranks[own_part] += higher[group]
            if equal.any():
                ranks[own_part] += _tied_before(
                    scores[row], start, thresholds, group, equal, documents[own_part], places
                )
    return ranks


def _count(scores: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the scores are higher than each threshold, and how many are equal to it; thresholds rise."""
    if len(thresholds) * _SORTING <= len(scores):
        higher = np.array([np.count_nonzero(scores > threshold) for threshold in thresholds])
        return higher, np.array([np.count_nonzero(scores >= threshold) for threshold in thresholds]) - higher
    kept = np.sort(scores[scores >= thresholds[0]])
    after = np.searchsorted(kept, thresholds, "right")
    return len(kept) - after, after - np.searchsorted(kept, thresholds, "left")


def _tied_before(
    scores: np.ndarray,
    start: int,
    thresholds: np.ndarray,
    group: np.ndarray,
    equal: np.ndarray,
    documents: np.ndarray,
    places: _Places,
) -> np.ndarray | int:
    """For each relevant document of a query how many of a block score the same and come before it."""
    inside = (documents >= start) & (documents < start + len(scores))
    mine = np.bincount(group[inside], minlength=len(thresholds))
    if not ((equal > mine) | ((equal > 0) & (np.bincount(group) > 1))).any():
        return 0  # each is equal to itself alone
    nearest = np.minimum(np.searchsorted(thresholds, scores), len(thresholds) - 1)
    same = np.flatnonzero(thresholds[nearest] == scores)
    keys = np.sort(nearest[same] * places.count + places.of(start + same))
    first = group * places.count
    before: np.ndarray = np.searchsorted(keys, first + places.of(documents)) - np.searchsorted(keys, first)
    return before
