"""What stands in the training data and in the evaluation data, which then measures memory instead of search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.known import numbered
from finetuner_core.data.search_set import SearchSet
from finetuner_core.values import quote


@dataclass(frozen=True)
class Leakage:
    """How much of the evaluation data is in the training data: equal texts, image files at one path, equal vectors.

    Args:
        queries: how many different items that ask are in the training data, in whatever role but a hard negative.
        of_queries: how many there are; of labelled data all items ask.
        pairs: how many of the queries are there with something that belongs to them.
        documents: how many different items that are to be found are in the training data.
        of_documents: how many there are.
        example: a query that is in both.
    """

    queries: int
    of_queries: int
    pairs: int = 0
    documents: int = 0
    of_documents: int = 0
    example: str = ""

    def __str__(self) -> str:
        """A sentence, or nothing where no query is in both."""
        if not self.queries:
            return ""
        what = "queries" if self.of_documents else "items"
        pairs = f"; {self.pairs:,} with what belongs to them" if self.pairs else ""
        return (
            f"{what} of the evaluation data that are in the training data as well: {self.queries:,} of "
            f"{self.of_queries:,}{pairs}, such as {self.example}"
        )


def find_leakage(train: Sequence[Dataset], evaluation: Dataset | SearchSet) -> Leakage:
    """Compares data for training with data for evaluation, by the identities of their items.

    Args:
        train: all that is trained on.
        evaluation: what is measured on.
    """
    if isinstance(evaluation, SearchSet):
        relevant = evaluation.judgements.grades > 0
        asking, found = evaluation.judgements.queries[relevant], evaluation.judgements.documents[relevant]
        columns: tuple[Column, ...] = (evaluation.queries, evaluation.corpus)
    else:
        asking = found = np.arange(len(evaluation))
        columns = evaluation.columns[:2]
    # Hard negatives teach what does not belong together, and are left out.
    seen = [column for dataset in train for column in dataset.columns[:2]]
    numbers = numbered((*columns, *seen))
    count = max(int(number.max()) for number in numbers) + 1
    known = np.zeros(count, bool)
    for number in numbers[len(columns) :]:
        known[number] = True
    queries, documents = numbers[0][asking], numbers[len(columns) - 1][found]
    leaked = known[queries]
    example = ""
    if leaked.any():
        example = quote(columns[0].shown(int(asking[np.argmax(leaked)])))
    asked = _different(queries, count), _different(queries[leaked], count)
    if len(columns) == 1:
        return Leakage(asked[1], asked[0], example=example)
    own = queries.astype(np.int64) * count + documents
    with_own = np.zeros(len(own), bool)
    place = len(columns)
    for dataset in train:
        if len(dataset.columns) > 1:
            with_own |= np.isin(own, numbers[place].astype(np.int64) * count + numbers[place + 1])
        place += min(2, len(dataset.columns))
    return Leakage(
        asked[1],
        asked[0],
        _different(queries[with_own], count),
        _different(documents[known[documents]], count),
        _different(documents, count),
        example,
    )


def _different(numbers: np.ndarray, count: int) -> int:
    seen = np.zeros(count, bool)
    seen[numbers] = True
    return int(seen.sum())
