"""Medians, and how far ratios spread. No clock and no library here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Turn = Mapping[str, Any]
"""What a child says of one turn: `seconds` of the wall clock, `cpu` seconds, `peak` bytes, and what else it knows."""


class Spread(NamedTuple):
    """The middle of some numbers, the least and the largest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum.

    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    return Spread(statistics.median(values), min(values), max(values))


def ratios(slow: Sequence[Turn], fast: Sequence[Turn], key: str) -> Spread:
    """How many times as much of something one side took as the other, round by round.

    The two sides of a round stand beside each other in time and compute the same batch: what is slow about either falls
    out of their ratio. It is not the ratio of the medians.

    Args:
        slow: the turns of one side.
        fast: those of the other, as many.
        key: what is compared, such as `seconds`.
    """
    return spread([one[key] / other[key] for one, other in zip(slow, fast, strict=True)])


def per_second(turns: Sequence[Turn], key: str) -> float:
    """How much of something was done in a second, all turns together."""
    total: float = sum(turn[key] for turn in turns)
    seconds: float = sum(turn["seconds"] for turn in turns)
    return total / seconds


def peak(turns: Sequence[Turn]) -> int:
    """The most memory in any turn, in bytes."""
    most: int = max(turn["peak"] for turn in turns)
    return most


def fastest(turns: Mapping[str, Sequence[Turn]]) -> str:
    """The name of the side whose median turn is the shortest.

    >>> fastest({"a": [{"seconds": 2.0}], "b": [{"seconds": 1.0}]})
    'b'
    """
    return min(turns, key=lambda name: statistics.median(turn["seconds"] for turn in turns[name]))
