"""Which rows make the batches of an epoch. All of it follows from the seed and the epoch's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, isfinite
from typing import Protocol

import numpy as np

from finetuner_core.data.dataset import Dataset
from finetuner_core.data.known import Known
from finetuner_core.data.spread import Spread
from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import quote


class Batches(Protocol):
    """Batches of one data set."""

    known: Known

    @property
    def per_epoch(self) -> int:
        """How many batches an epoch has."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers, from batch `start` on."""
        ...


class PairBatches:
    """Pairs or scored rows in random order: each once an epoch, in batches of nearly equal size.

    Of pairs no batch holds an item twice, nor a document that is known to belong to the anchor of another row, wherever
    rows can be ordered so by changing places. Where they cannot, as with 77 answers to 10,000 questions in batches of
    100, such rows stand together all the same, as evenly as they can, and `known` says what the loss has to leave out.

    Args:
        dataset: data in the form `pairs` or `scored`.
        batch_size: the most rows in a batch.
        seed: what the order follows from.

    Raises:
        DataError: if there are fewer rows than a batch has.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        if len(dataset) < batch_size:
            raise DataError(
                f"{dataset.source} has {len(dataset)} pairs for training, fewer than a batch of {batch_size}.\n"
                "Give more data or a smaller batch size."
            )
        self.seed = seed
        self.per_epoch = ceil(len(dataset) / batch_size)
        self.known = Known(dataset)
        self._spread = Spread(self.known, len(dataset), self.per_epoch)

    @property
    def unavoidable(self) -> int:
        """How many rows must share a batch with the same item, since more rows hold it than there are batches."""
        return self._spread.unavoidable

    def epoch(self, number: int, start: int = 0) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers, from batch `start` on."""
        return self._spread.order(_seeds(self.seed, number), start)


class ClassBatches:
    """Batches with the same number of items of each of their classes, so that every item has a positive in its batch.

    Every class comes equally often, and within a class every item before one comes again. What stands twice in a class
    counts as one item, and classes of one item are left out. An epoch has as many items as the data, on average and
    rounded up to whole batches.

    Args:
        dataset: data in the form `labelled`.
        batch_size: the most items in a batch.
        per_class: the least items of a class in a batch; more where there are too few classes to fill it.
        seed: what the order follows from.

    Raises:
        DataError: if fewer than two classes have two items.
    """

    def __init__(self, dataset: Dataset, batch_size: int, per_class: int, seed: int) -> None:
        self.known = Known(dataset)
        # The rows class by class, each different item of a class once.
        items, classes = self.known.items[0].astype(np.int64), dataset.classes
        rows = np.sort(np.unique(classes * self.known.count + items, return_index=True)[1])
        self.duplicates = len(dataset) - len(rows)
        sizes = np.bincount(classes[rows])
        self.left_out = int((sizes < 2).sum())
        rows = rows[sizes[classes[rows]] > 1]
        self._rows = rows[np.argsort(classes[rows], kind="stable")]
        sizes = sizes[sizes > 1]
        self._ends = np.cumsum(sizes)
        if len(sizes) < 2:
            raise DataError(
                f"{dataset.source} has {len(sizes) + self.left_out} labels, and {len(sizes)} of them on more than one "
                "item.\nTraining needs at least two labels with two items each."
            )
        self.classes_per_batch = min(len(sizes), max(2, batch_size // per_class))
        self.items_per_class = max(2, batch_size // self.classes_per_batch)
        # What a batch holds on average, given that a small class fills less of it.
        share = int(np.minimum(sizes, self.items_per_class).sum())
        self.per_epoch = ceil(len(rows) * len(sizes) / (self.classes_per_batch * share))
        self.seed = seed

    def epoch(self, number: int, start: int = 0) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers, from batch `start` on.

        A class with too few items for a batch gives all that it has. What is before the start is dealt and put aside.
        """
        rng = np.random.default_rng(_seeds(self.seed, number))
        rows, ends = self._rows.copy(), self._ends.tolist()
        order = _Deck(np.arange(len(ends)), rng)
        decks: dict[int, _Deck] = {}
        for step in range(self.per_epoch):
            batch: list[int] = []
            for label in order.deal(self.classes_per_batch):
                deck = decks.get(label)
                if deck is None:
                    deck = decks[label] = _Deck(rows[ends[label - 1] if label else 0 : ends[label]], rng)
                batch += deck.deal(min(self.items_per_class, len(deck.cards)))
            if step >= start:
                yield batch


class _Deck:
    """Deals cards from a shuffled deck, different ones in each deal, and shuffles anew when it runs out.

    Args:
        cards: different ones; their order is changed in place.
        rng: what shuffles them.
    """

    def __init__(self, cards: np.ndarray, rng: np.random.Generator) -> None:
        self.cards, self.rng = cards, rng
        self.left = 0  # the deck is `cards[:left]`, and is dealt from its end

    def deal(self, count: int) -> list[int]:
        if count > self.left:
            # What is left in the old deck is dealt first, then comes to the bottom of the new one.
            dealt, others = self.cards[: self.left].copy(), self.cards[self.left :].copy()
            self.rng.shuffle(others)
            missing = count - self.left
            self.cards[:] = np.concatenate([dealt, others])
            self.left = len(self.cards) - missing
            return [*dealt.tolist(), *self.cards[self.left :].tolist()]
        self.left -= count
        cards: list[int] = self.cards[self.left : self.left + count].tolist()
        return cards


class MixedBatches:
    """Batches of several data sets, each from one of them, in random order.

    An epoch has as many steps as those of the parts together. Without weights each part gives each of its batches once.
    With weights it gives its share of the steps, at least one. A part goes on where the epoch before has left it: one
    with a large share begins its own next epoch within this one, and one with a small share is not gone through before
    several epochs are over; no row is passed over.

    Args:
        parts: batches of each data set.
        weights: for each part its share of the steps, in any unit.
        seed: what the order of the parts follows from.

    Raises:
        OptionError: if there is not one weight above 0 for each part.
    """

    def __init__(self, parts: Sequence[Batches], weights: Sequence[float] | None, seed: int) -> None:
        self.parts, self.seed = tuple(parts), seed
        own = np.array([part.per_epoch for part in self.parts])
        if weights is not None and len(weights) != len(own):
            raise OptionError(f"There are {len(weights)} weights for {len(own)} data sets. Give one for each.")
        for weight in weights or ():
            if not (isfinite(weight) and weight > 0):
                raise OptionError(f"A weight is {quote(weight)}; it must be a number above 0.")
        self.steps = own if weights is None else _shares(int(own.sum()), np.asarray(weights, np.float64))
        self.per_epoch = int(own.sum())

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[int, list[int]]]:
        """The batches of one epoch, as the number of a part and row numbers in it, from batch `start` on."""
        order = np.repeat(np.arange(len(self.parts)), self.steps)
        np.random.default_rng(_seeds(self.seed, number)).shuffle(order)
        passed = np.bincount(order[:start], minlength=len(self.parts)).tolist()
        streams = [
            # Epochs are counted from 1.
            _onward(part, (number - 1) * steps + before)
            for part, steps, before in zip(self.parts, self.steps.tolist(), passed, strict=True)
        ]
        for part in order[start:].tolist():
            yield part, next(streams[part])


def _onward(batches: Batches, step: int) -> Iterator[list[int]]:
    """The batches of epoch after epoch without end, from a step on that is counted from the beginning of epoch 1."""
    number, start = divmod(step, batches.per_epoch)
    while True:
        number += 1
        yield from batches.epoch(number, start)
        start = 0


def _shares(steps: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers that add up to the steps, as near to the weights as can be, and at least one for each."""
    exact = (steps - len(weights)) * weights / weights.sum()
    shares: np.ndarray = exact.astype(np.int64)
    # Those that were cut the most get what is left over.
    shares[np.argsort(shares - exact, kind="stable")[: steps - len(weights) - int(shares.sum())]] += 1
    shares += 1
    return shares


def _seeds(seed: int, epoch: int) -> tuple[int, int]:
    # A generator takes no number below 0.
    return seed % 2**64, epoch % 2**64
