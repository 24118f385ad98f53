"""Queries against a corpus, with what is relevant to each and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from finetuner_core.data.dataset import PLURAL, Cells, Column, Dataset
from finetuner_core.data.known import ranges
from finetuner_core.errors import DataError


class Judgements(NamedTuple):
    """Which documents were judged for each query, and how relevant they are, as compressed rows.

    Args:
        offsets: int64 (Q + 1,): the judgements of query q are those from `offsets[q]` to before `offsets[q + 1]`.
        documents: int64 (J,), positions in the corpus, rising within a query.
        grades: int64 (J,): 0 or less is not relevant, and the higher the more.
    """

    offsets: np.ndarray
    documents: np.ndarray
    grades: np.ndarray

    @classmethod
    def of_triples(cls, queries: np.ndarray, documents: np.ndarray, grades: np.ndarray, count: int) -> Judgements:
        """From one query, document and grade for each judgement, int64 (J,), in any order.

        Args:
            queries: which query it is of.
            documents: which document was judged.
            grades: how relevant it is.
            count: how many queries there are.
        """
        order = np.lexsort((documents, queries))
        return cls(_offsets(np.bincount(queries, minlength=count)), documents[order], grades[order])

    @property
    def counts(self) -> np.ndarray:
        """How many judgements each query has, int64 (Q,)."""
        return np.diff(self.offsets)

    @property
    def queries(self) -> np.ndarray:
        """For each judgement its query, int64 (J,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def take(self, queries: np.ndarray) -> Judgements:
        """The judgements of some queries, in the order asked for."""
        start, end = self.offsets[queries], self.offsets[np.asarray(queries) + 1]
        kept = ranges(start, end)
        return Judgements(_offsets(end - start), self.documents[kept], self.grades[kept])


@dataclass(frozen=True)
class SearchSet:
    """Queries against a corpus with graded relevance.

    Args:
        queries: what asks.
        corpus: what is searched, all of it for each query.
        judgements: what is relevant. A query without any is not asked.
        query_ids: an id for each query.
        corpus_ids: an id for each document. Documents that score the same are ordered by it, as trec_eval does.
        source: where it came from, for messages.

    Raises:
        DataError: if the lengths do not go together.

    >>> pairs = (Column("q", "text", ["one", "two", "one"]), Column("d", "text", ["1", "2", "I"]))
    >>> SearchSet.of_pairs(Dataset(pairs)).summary()
    '2 queries in 3 texts, 3 relevant'
    """

    queries: Column
    corpus: Column
    judgements: Judgements
    query_ids: Sequence[str] | Cells | None = None
    corpus_ids: Sequence[str] | Cells | None = None
    source: str = "the data"

    def __post_init__(self) -> None:
        offsets, documents, grades = self.judgements
        for what, found, wanted in (
            ("offsets of the judgements", len(offsets), len(self.queries) + 1),
            ("grades", len(grades), len(documents)),
            ("ids of queries", len(self.queries if self.query_ids is None else self.query_ids), len(self.queries)),
            ("ids of documents", len(self.corpus if self.corpus_ids is None else self.corpus_ids), len(self.corpus)),
        ):
            if found != wanted:
                raise DataError(f"{self.source} has {found:,} {what}; for what else it holds it takes {wanted:,}.")
        if len(documents) and not 0 <= documents.min() <= documents.max() < len(self.corpus):
            raise DataError(
                f"{self.source} judges the document {documents.max()}; they are numbered 0 to {len(self.corpus) - 1}."
            )

    @classmethod
    def of_pairs(cls, dataset: Dataset) -> SearchSet:
        """The different anchors of pairs against their different positives, relevant where they stand in one row.

        The ids of the queries are the rows in which they stand first; documents have none.
        """
        anchors, positives = dataset.columns[:2]
        asking, answering = _first_rows(anchors.identities), _first_rows(positives.identities)
        count = len(answering)
        queries, documents = np.divmod(np.unique(anchors.identities * count + positives.identities), count)
        return cls(
            anchors.select(asking),
            positives.select(answering),
            Judgements.of_triples(queries, documents, np.ones_like(documents), len(asking)),
            query_ids=[str(row) for row in asking.tolist()],
            source=dataset.source,
        )

    def pairs(self) -> Dataset:
        """Each query with each of its relevant documents, to train on.

        Raises:
            DataError: if no document is relevant.
        """
        relevant = self.judgements.grades > 0
        if not relevant.any():
            raise DataError(f"{self.source}: no document is relevant to any query, so there is nothing to learn from.")
        anchors = replace(self.queries.select(self.judgements.queries[relevant]), name="anchor")
        positives = replace(self.corpus.select(self.judgements.documents[relevant]), name="positive")
        return Dataset((anchors, positives), source=self.source)

    def reversed(self) -> SearchSet:
        """The documents ask for the queries that they are relevant to; ids are left out."""
        _, documents, grades = self.judgements
        judgements = Judgements.of_triples(documents, self.judgements.queries, grades, len(self.corpus))
        return SearchSet(self.corpus, self.queries, judgements, source=self.source)

    def summary(self) -> str:
        """What it is, in a few words."""
        asked, relevant = int((self.judgements.counts > 0).sum()), int((self.judgements.grades > 0).sum())
        what = f"{asked:,} {'queries' if asked != 1 else 'query'}"
        return f"{what} in {len(self.corpus):,} {PLURAL[self.corpus.modality]}, {relevant:,} relevant"


def _offsets(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _first_rows(identities: np.ndarray) -> np.ndarray:
    """The row in which each different item stands first, int64."""
    # Identities are numbered in this order, so that each first one is higher than all before.
    return np.flatnonzero(np.diff(np.maximum.accumulate(identities), prepend=-1))
