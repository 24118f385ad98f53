"""Which rows make the batches of an epoch. All of it follows from the seed and the epoch's number."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil

from finetuner_core.data.dataset import Dataset
from finetuner_core.errors import DataError


class PairBatches:
    """Pairs in random order, in batches of nearly equal size: none is left out, and none stands in a tiny last batch.

    Args:
        dataset: data in the form `pairs`.
        batch_size: the most pairs in a batch.
        seed: what the order follows from.

    Raises:
        DataError: if there are fewer pairs than a batch has.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        if len(dataset) < batch_size:
            raise DataError(
                f"{dataset.source} has {len(dataset)} pairs for training, fewer than a batch of {batch_size}.\n"
                "Give more data or a smaller batch size."
            )
        self.rows, self.seed = len(dataset), seed
        self.per_epoch = ceil(len(dataset) / batch_size)

    def epoch(self, number: int) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers."""
        order = _shuffled(range(self.rows), self.seed, number)
        for batch in range(self.per_epoch):
            yield order[batch * self.rows // self.per_epoch : (batch + 1) * self.rows // self.per_epoch]


class ClassBatches:
    """Batches with the same number of items of each of their classes, so that every item has a positive in its batch.

    Every class comes equally often, and within a class every item before one comes again. Classes of one item are left
    out. An epoch has as many items as the data, on average and rounded up to whole batches.

    Args:
        dataset: data in the form `labelled`.
        batch_size: the most items in a batch.
        per_class: the least items of a class in a batch; more where there are too few classes to fill it.
        seed: what the order follows from.

    Raises:
        DataError: if fewer than two classes have two items.
    """

    def __init__(self, dataset: Dataset, batch_size: int, per_class: int, seed: int) -> None:
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, label in enumerate(dataset.classes.tolist()):
            rows_of[label].append(row)
        self.classes = [rows for rows in rows_of.values() if len(rows) > 1]
        self.left_out = len(rows_of) - len(self.classes)
        if len(self.classes) < 2:
            raise DataError(
                f"{dataset.source} has {len(rows_of)} labels, and {len(self.classes)} of them on more than one item.\n"
                "Training needs at least two labels with two items each."
            )
        self.classes_per_batch = min(len(self.classes), max(2, batch_size // per_class))
        self.items_per_class = max(2, batch_size // self.classes_per_batch)
        items = sum(map(len, self.classes))
        # What a batch holds on average, given that a small class fills less of it.
        share = sum(min(self.items_per_class, len(rows)) for rows in self.classes)
        self.per_epoch = ceil(items * len(self.classes) / (self.classes_per_batch * share))
        self.seed = seed

    def epoch(self, number: int) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers. A class with too few items for a batch gives all that it has."""
        rng = random.Random(f"{self.seed} {number}")
        order = _Deck(range(len(self.classes)), rng)
        decks = [_Deck(rows, rng) for rows in self.classes]
        for _ in range(self.per_epoch):
            batch: list[int] = []
            for label in order.deal(self.classes_per_batch):
                batch.extend(decks[label].deal(min(self.items_per_class, len(self.classes[label]))))
            yield batch


class _Deck:
    """Deals cards from a shuffled deck, different ones in each deal, and shuffles anew when it runs out."""

    def __init__(self, cards: Sequence[int], rng: random.Random) -> None:
        self.cards, self.rng = list(cards), rng
        self.left: list[int] = []

    def deal(self, count: int) -> list[int]:
        dealt = [self.left.pop() for _ in range(min(count, len(self.left)))]
        missing = count - len(dealt)
        if missing:
            fresh = [card for card in self.cards if card not in dealt]
            self.rng.shuffle(fresh)
            # What was dealt last from the old deck goes to the bottom of the new one, which is dealt from its end.
            self.left = dealt + fresh[missing:]
            dealt = dealt + fresh[:missing]
        return dealt


def _shuffled(rows: Sequence[int], seed: int, epoch: int) -> list[int]:
    order = list(rows)
    # A string seeds the generator by its hash under SHA-512, so epochs of near-by seeds do not resemble each other.
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def group_pairs(anchors: Sequence[int], positives: Sequence[int]) -> list[int]:
    """Labels for the pairs of one batch: equal where two pairs share their anchor or their positive.

    What belongs together is then never taken for a negative. It is found within the batch alone: over a whole data set
    such chains can tie everything together.

    Args:
        anchors: for each pair the identity of its anchor.
        positives: for each pair the identity of its positive.

    >>> group_pairs([0, 1, 0, 2], [5, 6, 7, 6])
    [0, 1, 0, 1]
    """
    label = list(range(len(anchors)))

    def root(pair: int) -> int:
        while label[pair] != pair:
            label[pair] = pair = label[label[pair]]
        return pair

    for column in (anchors, positives):
        first: dict[int, int] = {}
        for pair, identity in enumerate(column):
            a, b = root(first.setdefault(identity, pair)), root(pair)
            label[max(a, b)] = min(a, b)
    return [root(pair) for pair in range(len(anchors))]
