"""Holds data out for evaluation where a person gave none."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence

from finetuner_core.data.dataset import Dataset
from finetuner_core.errors import DataError, OptionError

MIN_HELD_OUT_CLASSES = 5


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset, str]:
    """Splits a data set for training and evaluation.

    Labelled data is split by class where that holds out at least five classes: the evaluation then asks for classes
    that training never saw, which is what a search over new things needs. With fewer classes, a share of each one's
    items is held out. Pairs are split so that no anchor, or for text with images no image, is on both sides.

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
    if dataset.form == "pairs":
        column = dataset.columns[1] if dataset.columns[1].modality == "image" else dataset.columns[0]
        held_out = _draw_groups(column.identities.tolist(), share, rng)
        how = f"by {column.name}"
    elif round(share * len(set(dataset.classes.tolist()))) >= MIN_HELD_OUT_CLASSES:
        held_out = _draw_groups(dataset.classes.tolist(), share, rng)
        how = "whole classes"
    else:
        held_out = _draw_within(dataset.classes.tolist(), share, rng)
        how = "some of every class"
    train = [row for row in range(len(dataset)) if row not in held_out]
    if not train or not held_out:
        needs = (
            f": at least {MIN_HELD_OUT_CLASSES} whole classes, or two items of a class with four"
            if dataset.form == "labelled"
            else ""
        )
        raise DataError(
            f"{dataset.source} has {dataset.summary()}, too few to hold out {share:.0%}{needs}.\n"
            "Give evaluation data of its own."
        )
    return dataset.select(train), dataset.select(sorted(held_out)), how


def _draw_groups(groups: Sequence[Hashable], share: float, rng: random.Random) -> set[int]:
    """Rows of whole groups."""
    names = list(dict.fromkeys(groups))
    drawn = set(rng.sample(names, round(share * len(names))))
    return {row for row, group in enumerate(groups) if group in drawn}


def _draw_within(groups: Sequence[Hashable], share: float, rng: random.Random) -> set[int]:
    """Rows of every group that has four, at least two and leaving two: a query needs something to find."""
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    drawn: set[int] = set()
    for rows in rows_of.values():
        if len(rows) >= 4:
            drawn.update(rng.sample(rows, min(max(2, round(share * len(rows))), len(rows) - 2)))
    return drawn
