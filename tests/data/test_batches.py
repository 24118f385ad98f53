from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuner_core.data.batches import ClassBatches, MixedBatches, PairBatches, _Deck
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError, OptionError


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


@st.composite
def pairs_with_slack(draw: st.DrawFn) -> tuple[list[list[str]], int]:
    """Columns whose items stand in so few rows that there is an order without conflict, and a size of batches."""
    rows = draw(st.integers(60, 120))
    often = draw(st.integers(1, 3))
    rng = random.Random(draw(st.integers(0, 2**32)))
    columns = [[f"{name} {row % (rows // often)}" for row in range(rows)] for name in ("ask", "say", "not")]
    for items in columns:
        rng.shuffle(items)
    if draw(st.booleans()):  # the same texts on either side, and hard negatives that are positives of others
        columns[1][0], columns[1][1] = columns[0][2], columns[0][3]
        columns[2][4], columns[2][5] = columns[1][6], columns[1][7]
    return columns[: draw(st.integers(2, 3))], draw(st.integers(2, 4))


@given(pairs_with_slack(), st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_conflict_where_it_can_be_avoided(case: tuple[list[list[str]], int], seed: int, number: int) -> None:
    columns, size = case
    data = Dataset(tuple(Column(str(n), "text", items) for n, items in enumerate(columns)))
    batches = PairBatches(data, size, seed)
    epoch = list(batches.epoch(number))
    assert sorted(row for batch in epoch for row in batch) == list(range(len(data)))
    assert {len(batch) for batch in epoch} <= {len(data) // len(epoch), -(-len(data) // len(epoch))}
    assert batches.unavoidable == 0
    belongs = set(zip(columns[0], columns[1], strict=True))
    for batch in epoch:
        for one, other in itertools.permutations(batch, 2):
            assert not {items[one] for items in columns} & {items[other] for items in columns}
            assert not any((columns[0][one], items[other]) in belongs for items in columns[1:])


@given(st.lists(st.integers(0, 12), min_size=8, max_size=80), st.integers(2, 8), st.integers(0, 9))
def test_what_repeats_in_one_column_is_spread_as_evenly_as_can_be(items: list[int], size: int, seed: int) -> None:
    columns = [f"a {row}" for row in range(len(items))], [f"b {item}" for item in items]
    batches = PairBatches(Dataset((Column("a", "text", columns[0]), Column("b", "text", columns[1]))), size, seed)
    counts = Counter(items)
    assert batches.unavoidable == sum(max(0, count - batches.per_epoch) for count in counts.values())
    for batch in batches.epoch(1):
        for item, count in Counter(items[row] for row in batch).items():
            assert count <= -(-counts[item] // batches.per_epoch)


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_an_epoch_goes_on_from_any_step(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuner_core.data.spread._AT_ONCE", at_once)
    rng = random.Random(0)
    columns = [Column(name, "text", [f"{name} {rng.randrange(90)}" for _ in range(100)]) for name in "ab"]
    scored = Dataset(tuple(columns), scores=np.zeros((100, 1), np.float32))
    all_of: list[PairBatches | ClassBatches] = [
        PairBatches(Dataset(tuple(columns)), 7, 3),
        PairBatches(scored, 7, 3),
        ClassBatches(labelled([1, 5, 9, 2, 30, 4]), 6, 2, 3),
    ]
    for batches in all_of:
        whole = list(batches.epoch(2))
        assert len(whole) == batches.per_epoch
        for start in range(len(whole) + 1):
            assert list(batches.epoch(2, start)) == whole[start:]
    mixed = MixedBatches(all_of, [1, 2.5, 1], 0)
    several = list(mixed.epoch(2))
    for start in range(len(several) + 1):
        assert list(mixed.epoch(2, start)) == several[start:]


def test_scored_rows_come_once_each_and_may_repeat() -> None:
    column = Column("a", "text", ["same"] * 11)
    batches = PairBatches(Dataset((column, column), scores=np.zeros((11, 1), np.float32)), 4, 0)
    epoch = list(batches.epoch(1))
    assert sorted(row for batch in epoch for row in batch) == list(range(11))
    assert batches.unavoidable == 0
    assert batches.known.excluded(epoch[0]) is None


def test_the_order_is_that_of_any_other_process() -> None:
    # The hash of a text differs between processes, and no order may follow from it.
    code = (
        "import random; from finetuner_core.data.batches import PairBatches\n"
        "from finetuner_core.data.dataset import Column, Dataset\n"
        "r = random.Random(0)\n"
        "c = [Column(n, 'text', [f'{r.randrange(40)}' for _ in range(200)]) for n in 'ab']\n"
        "print(list(PairBatches(Dataset(tuple(c)), 9, 0).epoch(1)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 200


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


def test_equal_items_of_a_class_count_once() -> None:
    texts = ["a", "a", "a", "b", "c", "d", "a", "e", "f", "f"]
    data = Dataset((Column("text", "text", texts),), ["x"] * 4 + ["y"] * 4 + ["z"] * 2, "my.csv")
    batches = ClassBatches(data, 4, 2, 0)
    assert (batches.duplicates, batches.left_out) == (3, 1)  # z is one item
    for number in range(20):
        for batch in batches.epoch(number):
            for label in range(3):
                inside = [texts[row] for row in batch if data.classes[row] == label]
                assert len(set(inside)) == len(inside)


class TestMixedBatches:
    def parts(self) -> list[PairBatches | ClassBatches]:
        return [PairBatches(pairs(40), 4, 1), ClassBatches(labelled([6] * 5), 6, 3, 1), PairBatches(pairs(9), 3, 1)]

    def test_without_weights_each_part_gives_its_own_epoch_in_random_order(self) -> None:
        parts = self.parts()
        mixed = MixedBatches(parts, None, 0)
        assert mixed.per_epoch == 10 + 5 + 3
        for number in (1, 2, 5):
            epoch = list(mixed.epoch(number))
            for which, part in enumerate(parts):
                assert [rows for one, rows in epoch if one == which] == list(part.epoch(number))
        orders = {tuple(which for which, _ in mixed.epoch(number)) for number in range(1, 9)}
        assert len(orders) == 8

    @pytest.mark.parametrize(
        ("weights", "steps"),
        [([1, 1, 1], [6, 6, 6]), ([1, 3, 1], [4, 10, 4]), ([1000, 1, 1], [16, 1, 1]), ([0.1, 0.1, 0.2], [5, 5, 8])],
    )
    def test_a_part_has_its_share_and_no_row_is_passed_over(self, weights: list[float], steps: list[int]) -> None:
        parts = self.parts()
        mixed = MixedBatches(parts, weights, 0)
        epochs = [list(mixed.epoch(number)) for number in range(1, 8)]
        for which, part in enumerate(parts):
            assert all([one for one, _ in epoch].count(which) == steps[which] for epoch in epochs)
            given = [rows for epoch in epochs for one, rows in epoch if one == which]
            endless = (rows for number in itertools.count(1) for rows in part.epoch(number))
            assert given == list(itertools.islice(endless, len(given)))

    @given(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
    def test_shares_are_as_near_to_the_weights_as_whole_steps_can_be(self, weights: list[float]) -> None:
        mixed = MixedBatches(self.parts(), weights, 0)
        assert mixed.steps.sum() == mixed.per_epoch == 18
        for steps, weight in zip(mixed.steps, weights, strict=True):
            assert abs(steps - 1 - 15 * weight / sum(weights)) < 1

    def test_weights_that_are_none(self) -> None:
        with pytest.raises(OptionError, match=r"^There are 2 weights for 3 data sets\. Give one for each\.$"):
            MixedBatches(self.parts(), [1, 2], 0)
        for weight in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(OptionError, match=r"^A weight is .*; it must be a number above 0\.$"):
                MixedBatches(self.parts(), [1, weight, 2], 0)
