"""What is wrong, or strange, with data that can be read: all of it counted over the whole of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.known import distinct, numbered
from finetuner_core.data.search_set import SearchSet
from finetuner_core.errors import DataError
from finetuner_core.values import quote

# More items than this in a class, on average, and one class of them all: less says nothing about a label column.
_FEW_ITEMS = 1.2


@dataclass(frozen=True)
class Problem:
    """Something to know before training.

    Args:
        kind: `error` where training would fail, else `warning`.
        text: what it is, with counts.
    """

    kind: Literal["error", "warning"]
    text: str


def find_problems(data: Dataset, batch_size: int) -> list[Problem]:
    """What is wrong, or strange, with data for training.

    Args:
        data: what would be trained on.
        batch_size: how many items, or rows, a step has.
    """
    problems = []
    try:
        if data.form == "labelled":
            ClassBatches(data, batch_size, 2, 0)
        elif len(data) < batch_size:
            PairBatches(data, batch_size, 0)
    except DataError as error:
        problems.append(Problem("error", str(error).replace("\n", " ")))
    texts = _labelled(data) if data.form == "labelled" else _rows(data)
    return problems + [Problem("warning", text) for text in texts]


def find_eval_problems(data: Dataset | SearchSet) -> list[Problem]:
    """What is wrong with data for evaluation: where there is nothing to find."""
    try:
        check_evaluable(data)
    except DataError as error:
        return [Problem("error", str(error).replace("\n", " "))]
    return []


def check_evaluable(data: Dataset | SearchSet) -> None:
    """Whether there is anything to find in data, or anything to compare with.

    Raises:
        DataError: if no label stands on two items, no query has a judgement above 0, or all scores are the same.
    """
    if isinstance(data, SearchSet):
        if not data.judgements.counts.any():
            raise DataError(f"{data.source}: no query has a judgement, so it is not known what to find.")
        if not (data.judgements.grades > 0).any():
            raise DataError(
                f"{data.source}: no document is relevant to any query, so there is nothing to find.\n"
                "Evaluation needs a grade above 0."
            )
    elif data.form == "labelled" and int(data.classes.max()) + 1 == len(data):
        raise DataError(
            f"{data.source}: each of its {len(data)} items has a label of its own, so there is nothing to find.\n"
            "Evaluation needs labels with two items or more."
        )
    elif data.scores is not None:
        # Of several candidates those of one row are compared, of one those of all rows.
        beside = data.scores[:, :1] if data.scores.shape[1] > 1 else data.scores[:1]
        if (data.scores == beside).all():
            raise DataError(f"{data.source}: all scores are the same, so there is no order to compare with.")


def _labelled(data: Dataset) -> list[str]:
    (column,), classes = data.columns, data.classes
    found = []
    count = int(classes.max()) + 1
    if count > 1 and len(data) / count < _FEW_ITEMS:
        found.append(f"there are {count:,} labels on {len(data):,} items: is the column of labels the right one?")
    alone = int((np.bincount(classes) == 1).sum())
    if alone:
        found.append(f"labels of one item only, which are left out of training: {alone:,} of {count:,}")
    items = column.identities
    pairs, first = np.unique(items * count + classes, return_index=True)
    if len(pairs) < len(data):
        found.append(f"an item again under the same label: {_count(len(data) - len(pairs), 'row')}")
    several = np.bincount(pairs // count) > 1
    if several.any():
        row = int(first[np.flatnonzero(several[pairs // count])[0]])
        labels = np.unique(classes[items == items[row]])
        names = [quote((data.labels or ())[int(np.argmax(classes == label))]) for label in labels[:2]]
        found.append(
            f"under several labels: {_count(int(several.sum()), 'item')}, such as {quote(column.shown(row))} "
            f"under {' and '.join(names)}"
        )
    return found


def _rows(data: Dataset) -> list[str]:
    items = [own.astype(np.int64) for own in numbered(data.columns)]
    anchors, others = items[0], items[1:]
    count = max(int(own.max()) for own in items) + 1
    found = []

    def say(rows: np.ndarray, text: str, place: int = 0) -> None:
        if len(rows):
            example = quote(data.columns[place].shown(int(rows[0])))
            found.append(f"{text}: {_count(len(rows), 'row')}, such as {example}")

    keys = anchors
    for own in others:
        keys = np.unique(keys * count + own, return_inverse=True)[1].reshape(-1)
    repeated = _repeated(keys)
    say(repeated, "the same as an earlier row")
    if data.scores is not None:
        if len(repeated) and len(np.unique(np.column_stack([keys, data.scores]), axis=0)) > len(np.unique(keys)):
            found.append("rows that are the same as earlier ones have other scores than those")
        if float(data.scores.min()) == float(data.scores.max()):
            found.append(f"every score is {float(data.scores.min()):g}, so there is nothing to learn from them")
        return found
    say(np.flatnonzero(anchors == others[0]), "a positive that is its anchor")
    known = distinct(anchors * count + others[0])
    for place, own in enumerate(others[1:], 2):
        name = data.columns[place].name
        say(
            np.flatnonzero(np.isin(anchors * count + own, known)),
            f"a known positive of the anchor as {name}",
            place,
        )
        say(np.flatnonzero(anchors == own), f"the anchor itself as {name}", place)
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _repeated(keys: np.ndarray) -> np.ndarray:
    """The rows whose key stands in an earlier row."""
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return np.flatnonzero(~first)
