from __future__ import annotations

import random
from collections import Counter

import pytest

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.split import hold_out
from finetuner_core.errors import DataError, OptionError


def labelled(sizes: list[int]) -> Dataset:
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    random.Random(len(labels)).shuffle(labels)
    return Dataset((Column("text", "text", [f"text {row}" for row in range(len(labels))]),), labels)


def rows_of(dataset: Dataset) -> list[tuple[object, ...]]:
    labels = [] if dataset.labels is None else [dataset.labels]
    return list(zip(*(column.items for column in dataset.columns), *labels, strict=True))


def assert_split(whole: Dataset, train: Dataset, held_out: Dataset) -> None:
    """Each row is on one side, in the order that it had."""
    position = {row: at for at, row in enumerate(rows_of(whole))}
    assert len(position) == len(whole)
    assert Counter(rows_of(train)) + Counter(rows_of(held_out)) == Counter(rows_of(whole))
    for side in (train, held_out):
        places = [position[row] for row in rows_of(side)]
        assert places == sorted(places)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "share", "drawn"), [(25, 0.2, 5), (10, 0.5, 5), (103, 0.1, 10), (6, 0.8, 5)])
def test_holds_out_whole_classes_where_those_are_five(classes: int, share: float, drawn: int, seed: int) -> None:
    data = labelled([1 + number % 4 for number in range(classes)])
    train, held_out, how = hold_out(data, share, seed)
    assert_split(data, train, held_out)
    assert how == "whole classes"
    assert not set(train.labels or ()) & set(held_out.labels or ())
    assert len(set(held_out.labels or ())) == drawn


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_holds_out_some_of_every_class_where_classes_are_few(share: float, seed: int) -> None:
    sizes = [1, 2, 3, 4, 5, 20] if share < 0.8 else [3, 4, 5, 20]
    data = labelled(sizes)
    train, held_out, how = hold_out(data, share, seed)
    assert_split(data, train, held_out)
    assert how == "some of every class"
    left, drawn = Counter(train.labels), Counter(held_out.labels)
    for number, size in enumerate(sizes):
        label = f"class {number}"
        # Two items on each side can find each other; of fewer than four there is nothing to give away.
        assert drawn[label] == (0 if size < 4 else min(max(2, round(share * size)), size - 2))
        assert left[label] >= min(size, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("modalities", "how"), [(("text", "text"), "by anchor"), (("text", "image"), "by image")])
def test_nothing_asked_for_in_training_is_asked_for_again(modalities: tuple[str, str], how: str, seed: int) -> None:
    rng = random.Random(seed)
    pairs = list(dict.fromkeys((f"a{rng.randrange(30)}", f"p{rng.randrange(30)}") for _ in range(100)))
    names = ("anchor", "positive") if modalities[1] == "text" else ("text", "image")
    columns = tuple(
        Column(name, modality, list(items))  # type: ignore[arg-type]
        for name, modality, items in zip(names, modalities, zip(*pairs, strict=True), strict=True)
    )
    data = Dataset(columns)
    train, held_out, told = hold_out(data, 0.3, seed)
    assert_split(data, train, held_out)
    assert told == how
    by = 0 if how == "by anchor" else 1
    on_each_side = [set(side.columns[by].take(range(len(side)))) for side in (train, held_out)]
    assert not on_each_side[0] & on_each_side[1]
    assert len(on_each_side[1]) == round(0.3 * len({pair[by] for pair in pairs}))


@pytest.mark.parametrize("data", [labelled([3] * 30), labelled([10] * 4), Dataset(labelled([50]).columns * 2)])
def test_follows_from_the_seed(data: Dataset) -> None:
    draws = [rows_of(hold_out(data, 0.3, seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]


@pytest.mark.parametrize(
    ("data", "share"),
    [
        (labelled([3, 3, 3]), 0.2),
        (labelled([1]), 0.5),
        (Dataset(labelled([1]).columns * 2), 0.5),
        (Dataset(labelled([4]).columns * 2), 0.1),
        (Dataset(labelled([4]).columns * 2), 0.9),
        (labelled([1] * 6), 0.95),
    ],
)
def test_too_little_to_hold_anything_out(data: Dataset, share: float) -> None:
    with pytest.raises(DataError) as caught:
        hold_out(data, share, 0)
    needs = "" if data.labels is None else ": at least 5 whole classes, or two different items of a class with four"
    assert str(caught.value) == (
        f"the data has {data.summary()}, too few to hold out {share:.0%}{needs}.\nGive evaluation data of its own."
    )


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5, 20, float("nan")])
def test_the_share_must_be_one(share: float) -> None:
    with pytest.raises(OptionError, match=rf"^val_split is {share}; it must be between 0 and 1, such as 0\.2\.$"):
        hold_out(labelled([9, 9]), share, 0)


def test_what_stands_twice_in_its_class_is_on_one_side() -> None:
    texts = [f"{label}{number}" for label in "ab" for number in range(8) for _ in range(2)]
    data = Dataset((Column("text", "text", texts),), [text[0] for text in texts])
    train, held_out, how = hold_out(data, 0.25, 0)
    assert (how, len(train), len(held_out)) == ("some of every class", 24, 8)
    assert not {*train.columns[0].take(range(24))} & {*held_out.columns[0].take(range(8))}
