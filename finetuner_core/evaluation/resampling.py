"""How far a number would move with other queries: bootstrap intervals, and the paired randomisation test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
# Numbers held at a time: 2^21, 16 MiB.
_AT_A_TIME = 1 << 21
# Beyond so many rows what the resamples come to is normal, and its width is computed instead of drawn.
MANY = 20_000
_NORMAL_95 = 1.959963984540054

Statistic = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A 95% interval.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def bootstrap(statistic: Statistic, rows: int, error: float) -> Interval:
    """The 95% percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) over rows.

    Args:
        statistic: from how often each row is drawn, float64 (B, N), what they come to, (B,).
        rows: how many rows there are, N.
        error: the standard error, which is used instead where there are very many rows.
    """
    if rows > MANY:
        value = float(statistic(np.ones((1, rows)))[0])
        return Interval(value - _NORMAL_95 * error, value + _NORMAL_95 * error)
    values = np.concatenate([statistic(drawn) for drawn in _draws(rows)])
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def sign_flip(differences: np.ndarray) -> float:
    """The p-value of the paired randomisation test that the mean of differences is 0, two-sided.

    Under the null hypothesis it is chance which of the two came first, so each difference is as likely with the other
    sign. All signs are tried where there are few, else 10,000 are drawn; Smucker, Allan and Carterette 2007,
    https://doi.org/10.1145/1321440.1321528.

    Args:
        differences: float64 (N,), one for each query.
    """
    differences = differences[differences != 0]
    count = len(differences)
    if not count:
        return 1.0
    # As large as what was seen, but for the rounding of a sum.
    seen = abs(float(differences.sum())) * (1 - 1e-12)
    if count > MANY:
        return math.erfc(seen / math.sqrt(2 * float(np.square(differences).sum())))
    if 1 << count <= RESAMPLES:
        signs = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
        return float((abs((1 - 2 * signs) @ differences) >= seen).mean())
    rng = np.random.default_rng(0)
    as_large = 0
    for size in _sizes(count):
        bits = np.unpackbits(np.frombuffer(rng.bytes(size * -(-count // 8)), np.uint8).reshape(size, -1), axis=1)
        as_large += int((abs(differences.sum() - 2 * (bits[:, :count] @ differences)) >= seen).sum())
    return (as_large + 1) / (RESAMPLES + 1)


def _sizes(rows: int) -> Iterator[int]:
    size = max(1, _AT_A_TIME // rows)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)


def _draws(rows: int) -> Iterator[np.ndarray]:
    """How often each row is drawn in each resample, float64 (B, N), block by block; the same ones each time."""
    rng = np.random.default_rng(0)
    for size in _sizes(rows):
        drawn = rng.integers(0, rows, (size, rows), dtype=np.int32) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)
