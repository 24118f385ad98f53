"""How far a number would move with other queries: bootstrap intervals, and the paired randomisation test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from finetuner_core.evaluation.measures import Measure

RESAMPLES = 10_000
# Numbers held at a time: 2^21, 16 MiB.
_AT_A_TIME = 1 << 21
# Beyond so many rows what the resamples come to is normal, and its width is computed instead of drawn.
MANY = 10_000
_NORMAL_95 = 1.959963984540054


class Interval(NamedTuple):
    """A 95% interval.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def bootstrap(measures: Mapping[str, Measure]) -> dict[str, Interval]:
    """The 95% percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) of each measure.

    Measures of equally many rows are computed from the same draws.
    """
    intervals: dict[str, Interval] = {}
    for rows in {len(measure.rows) for measure in measures.values()}:
        own = {name: measure for name, measure in measures.items() if len(measure.rows) == rows}
        if rows > MANY:
            for name, measure in own.items():
                value, half = float(measure.rows.mean()), _NORMAL_95 * float(measure.rows.std()) / math.sqrt(rows)
                intervals[name] = Interval(value - half, value + half)
            continue
        values = [[measure.resampled(drawn) for measure in own.values()] for drawn in _draws(rows)]
        ends = np.percentile(np.concatenate(values, axis=1), [2.5, 97.5], axis=1).T.tolist()
        intervals.update({name: Interval(*own_ends) for name, own_ends in zip(own, ends, strict=True)})
    return {name: intervals[name] for name in measures}


def sign_flip(differences: np.ndarray) -> np.ndarray:
    """The p-values of the paired randomisation test that the mean of differences is 0, two-sided.

    Under the null hypothesis it is chance which of the two came first, so each difference is as likely with the other
    sign. All signs are tried where there are few, else 10,000 are drawn; Smucker, Allan and Carterette 2007,
    https://doi.org/10.1145/1321440.1321528.

    Args:
        differences: float64 (M, N): for each of M metrics one for each of N queries.

    Returns:
        float64 (M,).
    """
    rows = differences.shape[1]
    sums = differences.sum(axis=1)
    # As large as what was seen, but for the rounding of a sum, of which nothing may be left.
    seen = abs(sums) - 1e-12 * abs(differences).sum(axis=1)
    if rows > MANY:
        errors = np.sqrt(2 * np.square(differences).sum(axis=1))
        return np.array(
            [math.erfc(own / error) if error else 1.0 for own, error in zip(abs(sums), errors, strict=True)]
        )
    as_large = np.zeros(len(differences))
    rng = np.random.default_rng(0)
    for size in _sizes(rows):
        packed = np.frombuffer(rng.bytes(size * -(-rows // 8)), np.uint8).reshape(size, -1)
        flipped = np.unpackbits(packed, axis=1)[:, :rows].astype(np.float64)
        as_large += (abs(sums - 2 * (flipped @ differences.T)) >= seen).sum(axis=0)
    p = (as_large + 1) / (RESAMPLES + 1)
    for metric, own in enumerate(differences):
        changed = own[own != 0]
        if 1 << len(changed) <= RESAMPLES:
            signs = 1 - 2 * ((np.arange(1 << len(changed))[:, None] >> np.arange(len(changed))) & 1)
            p[metric] = (abs(signs @ changed) >= seen[metric]).mean()
    return p


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
