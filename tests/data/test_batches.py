from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from finetuner_core.data.batches import ClassBatches, PairBatches, _Deck, group_pairs
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError


def pairs(rows: int) -> Dataset:
    column = Column("text", "text", [str(row) for row in range(rows)])
    return Dataset((column, column), source="my.csv")


def labelled(sizes: Sequence[int]) -> Dataset:
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    random.Random(0).shuffle(labels)
    return Dataset((Column("text", "text", [str(row) for row in range(len(labels))]),), labels, "my.csv")


class TestPairBatches:
    @pytest.mark.parametrize(("rows", "size"), [(2, 2), (10, 5), (11, 5), (100, 33), (101, 100), (64, 3), (7, 7)])
    def test_every_row_once_in_batches_of_like_size(self, rows: int, size: int) -> None:
        batches = PairBatches(pairs(rows), size, seed=0)
        for number in range(3):
            epoch = list(batches.epoch(number))
            assert sorted(row for batch in epoch for row in batch) == list(range(rows))
            sizes = [len(batch) for batch in epoch]
            assert max(sizes) <= size
            assert max(sizes) - min(sizes) <= 1
            # No more batches than there have to be.
            assert len(sizes) == batches.per_epoch == -(-rows // size)

    def test_order_follows_from_seed_and_epoch(self) -> None:
        orders = {
            (seed, number): [row for batch in PairBatches(pairs(50), 8, seed).epoch(number) for row in batch]
            for seed in range(4)
            for number in range(4)
        }
        assert len(set(map(tuple, orders.values()))) == len(orders)
        assert list(range(50)) not in orders.values()
        again = PairBatches(pairs(50), 8, 3)
        list(again.epoch(0))
        assert [row for batch in again.epoch(2) for row in batch] == orders[3, 2]

    def test_too_few_rows_for_a_batch(self) -> None:
        with pytest.raises(DataError, match=r"^my\.csv has 7 pairs for training, fewer than a batch of 8\.\nGive more"):
            PairBatches(pairs(7), 8, 0)


SIZES = [
    [2, 2],
    [5, 2, 3],
    [50, 2, 2],
    [4] * 40,
    [2] * 100,
    [1, 30, 1, 40, 35],
    [1 + number % 7 for number in range(60)],
]


@pytest.mark.parametrize("sizes", SIZES, ids=range(len(SIZES)))
@pytest.mark.parametrize("batch_size", [4, 10, 16, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_class_batches(sizes: list[int], batch_size: int, seed: int) -> None:
    data = labelled(sizes)
    batches = ClassBatches(data, batch_size, 4, seed)
    usable = [size for size in sizes if size > 1]
    assert batches.left_out == len(sizes) - len(usable)
    for number in range(3):
        epoch = list(batches.epoch(number))
        assert len(epoch) == batches.per_epoch
        of_class: Counter[int] = Counter()
        of_item: Counter[int] = Counter()
        for batch in epoch:
            assert len(set(batch)) == len(batch) <= batch_size
            inside = Counter(int(data.classes[row]) for row in batch)
            assert len(inside) == min(len(usable), max(2, batch_size // 4))
            assert all(count >= 2 for count in inside.values())
            # As many of each as of any other, but for classes that have no more.
            assert all(
                count == max(inside.values()) or count == data.classes.tolist().count(label)
                for label, count in inside.items()
            )
            of_class.update(inside.keys())
            of_item.update(batch)
        # Every class as often as any other, and within a class every item once before one comes again.
        appearances = [of_class[label] for label, size in Counter(data.classes.tolist()).items() if size > 1]
        assert max(appearances) - min(appearances) <= 1
        for label in of_class:
            counts = [of_item[row] for row, own in enumerate(data.classes.tolist()) if own == label]
            assert max(counts) - min(counts) <= 1
        assert not any(of_class[label] for label, size in Counter(data.classes.tolist()).items() if size == 1)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "per_epoch"),
    [
        # 80 items: batches of 16 are 4 classes of 4; of 15, 3 classes of 5; of 17, 4 of 4.
        ([8] * 10, 16, 5),
        ([8] * 10, 15, 6),
        ([8] * 10, 17, 5),
        # Two classes fill a batch of 16 with 8 each.
        ([40] * 2, 16, 5),
        # 16 classes of two give 32 items and not 64, so 200 items need 7 batches and not 4.
        ([2] * 100, 64, 7),
        # A class of one counts for nothing.
        ([8] * 10 + [1] * 50, 16, 5),
    ],
)
def test_an_epoch_has_as_many_items_as_the_data(sizes: list[int], batch_size: int, per_epoch: int) -> None:
    batches = ClassBatches(labelled(sizes), batch_size, 4, 0)
    assert batches.per_epoch == per_epoch
    items = sum(size for size in sizes if size > 1)
    epoch = list(batches.epoch(1))
    assert items <= sum(map(len, epoch)) < items + len(epoch[0])


def test_an_epoch_of_uneven_classes_has_as_many_items_on_average() -> None:
    sizes = [2, 2, 2, 3, 3, 5, 8, 13, 21, 34] * 3
    batches = ClassBatches(labelled(sizes), 24, 4, 0)
    means = sum(len(batch) for number in range(200) for batch in batches.epoch(number)) / 200
    assert sum(sizes) <= means < sum(sizes) + 24


def test_class_batches_follow_from_seed_and_epoch() -> None:
    data = labelled([6] * 12)
    epochs = {
        (seed, number): tuple(map(tuple, ClassBatches(data, 16, 4, seed).epoch(number)))
        for seed in range(4)
        for number in range(4)
    }
    assert len(set(epochs.values())) == len(epochs)
    again = ClassBatches(data, 16, 4, 3)
    list(again.epoch(0))
    assert tuple(map(tuple, again.epoch(2))) == epochs[3, 2]


@pytest.mark.parametrize(("sizes", "labels", "on_more"), [([9], 1, 1), ([1, 1, 1], 3, 0), ([1, 2, 1], 3, 1)])
def test_fewer_than_two_classes_cannot_be_told_apart(sizes: list[int], labels: int, on_more: int) -> None:
    with pytest.raises(DataError) as caught:
        ClassBatches(labelled(sizes), 8, 4, 0)
    assert str(caught.value) == (
        f"my.csv has {labels} labels, and {on_more} of them on more than one item.\n"
        "Training needs at least two labels with two items each."
    )


def test_a_deck_deals_every_card_once_a_round_and_none_twice_at_once() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        cards = rng.sample(range(100), rng.randint(1, 12))
        deck = _Deck(np.array(cards), np.random.default_rng(seed))
        deals = [deck.deal(rng.randint(0, len(cards))) for _ in range(40)]
        assert all(len(set(deal)) == len(deal) for deal in deals)
        dealt = [card for deal in deals for card in deal]
        for start in range(0, len(dealt) - len(cards) + 1, len(cards)):
            assert sorted(dealt[start : start + len(cards)]) == sorted(cards)


def naive_groups(anchors: list[int], positives: list[int]) -> set[frozenset[int]]:
    """Grows the set of what each pair belongs with until nothing changes."""
    groups = set()
    for pair in range(len(anchors)):
        group = {pair}
        while True:
            grown = {
                other
                for other in range(len(anchors))
                if any(anchors[other] == anchors[one] or positives[other] == positives[one] for one in group)
            }
            if grown == group:
                break
            group = grown
        groups.add(frozenset(group))
    return groups


def test_pairs_that_share_anything_are_of_one_group() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        rows, spread = rng.randint(1, 24), rng.choice([2, 8, 30])
        anchors, positives = ([rng.randrange(spread) for _ in range(rows)] for _ in range(2))
        labels = group_pairs(anchors, positives)
        found = {frozenset(row for row, own in enumerate(labels) if own == label) for label in labels}
        assert found == naive_groups(anchors, positives)


def test_group_pairs_of_hand_made_cases() -> None:
    assert group_pairs([], []) == []
    # Equal numbers of an anchor and of a positive mean nothing: they number different things.
    assert group_pairs([0, 1], [1, 0]) == [0, 1]
    # A chain: 0-1 by the positive, 1-2 by the anchor.
    assert group_pairs([0, 1, 1, 3], [5, 5, 6, 7]) == [0, 0, 0, 3]
