"""Finds what cannot be read before training starts, and leaves it out if asked to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.images import find_unreadable
from finetuner_core.errors import DataError

# How many images are asked for at once: those that come from within a file are then in memory.
_AT_ONCE = 4096


def usable(dataset: Dataset, *, skip_bad_items: bool, where: Callable[[int], str] | None = None) -> tuple[Dataset, int]:
    """The part of a data set whose images can be read.

    Args:
        dataset: what to look through.
        skip_bad_items: whether to leave out what cannot be read.
        where: says where a row stands, where it is of a file.

    Returns:
        The data set, and how many of its rows were left out.

    Raises:
        DataError: if an image cannot be read and is not to be left out, or if none can be read.
    """
    bad = np.zeros(len(dataset), bool)
    reason_of: dict[int, str] = {}
    for column in dataset.columns:
        if column.modality == "image":
            wrong, reasons = _unreadable(column)
            bad |= wrong
            reason_of = reasons | reason_of
    if not bad.any():
        return dataset, 0
    row, count = min(reason_of), int(bad.sum())
    first, place = reason_of[row], "" if where is None else where(row)
    if place not in first:
        # What is within a tar is named with its place already.
        first = f"{place}: {first}"
    if not skip_bad_items:
        more = f" ({count:,} of {len(dataset):,} images)" if count > 1 else ""
        raise DataError(f"{first}{more}\nMend or remove it, or go on without: --skip-bad-items")
    if count == len(dataset):
        raise DataError(f"No image of {dataset.source} can be read. The first: {first}")
    return dataset.select(np.flatnonzero(~bad)), count


def _unreadable(column: Column) -> tuple[np.ndarray, dict[int, str]]:
    """The rows whose image cannot be read, bool (N,), and the reason where each such image stands first."""
    _, firsts = np.unique(column.identities, return_index=True)
    reason_of: dict[int, str] = {}
    for start in range(0, len(firsts), _AT_ONCE):
        rows = firsts[start : start + _AT_ONCE]
        reason_of |= {int(rows[place]): why for place, why in find_unreadable(column.take(rows)).items()}
    bad = np.isin(column.identities, column.identities[list(reason_of)] if reason_of else [])
    return bad, reason_of
