"""What both sides are handed."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.pairs import Pair
from benchmarks.speed.work import Work

PAIRS = [Pair(f"anchor {number}", f"positive {number}") for number in range(7)]
WORK = Work(
    model="model",
    batch_size=2,
    steps=3,
    folder="folder",
    device="cpu",
    threads=1,
    pairs=PAIRS,
    held_out=[Pair("a", "b")],
    pictures=[],
    labels=[],
)


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert Work.read(WORK.write(tmp_path / "work.json")) == WORK


def test_batches_are_whole_and_in_order() -> None:
    assert WORK.batches() == [[0, 1], [2, 3], [4, 5]]
    assert WORK.rows() == PAIRS[:6]
    assert WORK.texts()[:3] == ["anchor 0", "positive 0", "anchor 1"]


def test_a_seed_makes_one_order_of_the_same_rows() -> None:
    one, same, other = WORK.shuffled(1), WORK.shuffled(1), WORK.shuffled(2)

    assert one == same
    assert one.pairs != other.pairs
    assert sorted(one.pairs) == sorted(other.pairs) == WORK.rows()
    assert one.held_out == WORK.held_out
