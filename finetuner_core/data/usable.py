"""Finds what cannot be read before training starts, and leaves it out if asked to."""

from __future__ import annotations

from finetuner_core.data.dataset import Dataset
from finetuner_core.data.images import find_unreadable
from finetuner_core.errors import DataError


def usable(dataset: Dataset, *, skip_bad_items: bool) -> tuple[Dataset, int]:
    """The part of a data set whose images can be read.

    Args:
        dataset: what to look through.
        skip_bad_items: whether to leave out what cannot be read.

    Returns:
        The data set, and how many of its rows were left out.

    Raises:
        DataError: if an image cannot be read and is not to be left out, or if none can be read.
    """
    bad: dict[int, str] = {}
    for column in dataset.columns:
        if column.modality == "image":
            bad.update(find_unreadable(column.take(range(len(column)))))
    if not bad:
        return dataset, 0
    first = bad[min(bad)]
    if not skip_bad_items:
        more = f" ({len(bad)} of {len(dataset)} images)" if len(bad) > 1 else ""
        raise DataError(f"{first}{more}\nMend or remove it, or go on without: --skip-bad-items")
    if len(bad) == len(dataset):
        raise DataError(f"No image of {dataset.source} can be read. The first: {first}")
    return dataset.select([row for row in range(len(dataset)) if row not in bad]), len(bad)
