"""Holds data out for evaluation where a person gave none."""

from __future__ import annotations

import random

import numpy as np

from finetuner_core.data.dataset import Dataset
from finetuner_core.errors import DataError, OptionError

MIN_HELD_OUT_CLASSES = 5


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset, str]:
    """Splits a data set for training and evaluation.

    Labelled data is split by class where that holds out at least five classes: the evaluation then asks for classes
    that training never saw, which is what a search over new things needs. With fewer classes, a share of each one's
    different items is held out. Pairs and scored rows are split so that no anchor, or for text with images no image, is
    on both sides. What stands beside it may be: a document of the one side can be found for a query of the other.

    Args:
        dataset: what to split.
        share: how much of it to hold out, between 0 and 1.
        seed: what the choice follows from.

    Returns:
        The data for training, the data for evaluation, and how it was split, for the person.

    Raises:
        OptionError: if the share is not between 0 and 1.
        DataError: if there is too little to hold anything out.
    """
    if not 0 < share < 1:
        raise OptionError(f"val_split is {share}; it must be between 0 and 1, such as 0.2.")
    rng = random.Random(seed)
    if dataset.form != "labelled":
        column = dataset.columns[1] if dataset.columns[1].modality == "image" else dataset.columns[0]
        drawn = _draw_groups(column.identities, share, rng)
        how = f"by {column.name}"
    elif round(share * (int(dataset.classes.max()) + 1)) >= MIN_HELD_OUT_CLASSES:
        drawn = _draw_groups(dataset.classes, share, rng)
        how = "whole classes"
    else:
        # Of what stands twice in its class both go the same way: else training would know what it is asked for.
        items = dataset.columns[0].identities
        _, first, which = np.unique(dataset.classes * len(items) + items, return_index=True, return_inverse=True)
        drawn = _draw_within(dataset.classes[first], share, rng)[which]
        how = "some of every class"
    train, held_out = np.flatnonzero(~drawn), np.flatnonzero(drawn)
    if not len(train) or not len(held_out):
        needs = (
            f": at least {MIN_HELD_OUT_CLASSES} whole classes, or two different items of a class with four"
            if dataset.form == "labelled"
            else ""
        )
        raise DataError(
            f"{dataset.source} has {dataset.summary()}, too few to hold out {share:.0%}{needs}.\n"
            "Give evaluation data of its own."
        )
    return dataset.select(train), dataset.select(held_out), how


def _draw_groups(groups: np.ndarray, share: float, rng: random.Random) -> np.ndarray:
    """Rows of whole groups, which are numbered from 0: bool (N,)."""
    count = int(groups.max()) + 1
    drawn = np.zeros(count, bool)
    drawn[rng.sample(range(count), round(share * count))] = True
    held_out: np.ndarray = drawn[groups]
    return held_out


def _draw_within(groups: np.ndarray, share: float, rng: random.Random) -> np.ndarray:
    """Rows of every group that has four, at least two and leaving two: a query needs something to find."""
    held_out = np.zeros(len(groups), bool)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(groups))[:-1]):
        if len(rows) >= 4:
            held_out[rows[rng.sample(range(len(rows)), min(max(2, round(share * len(rows))), len(rows) - 2))]] = True
    return held_out
