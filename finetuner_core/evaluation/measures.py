"""Numbers about rows: a mean, or a correlation. Each can be computed again for rows that are drawn anew."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np


class Measure(Protocol):
    """A number about rows, which are queries, or pairs with a score."""

    @property
    def rows(self) -> np.ndarray:
        """What each row contributes, float64 (N,): the number is their mean."""
        ...

    @property
    def error(self) -> float:
        """The standard error of the number."""
        ...

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The number, float64 (B,), if each row were there as often as it was drawn, float64 (B, N)."""
        ...


class Mean:
    """The mean of one value for each row, float64 (N,)."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(self.rows.std() / math.sqrt(len(self.rows)))

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The means."""
        means: np.ndarray = drawn @ self.rows / len(self.rows)
        return means


class Correlation:
    """Pearson's correlation of two values of each row, or Spearman's: that of their ranks, ties by average rank.

    What a row contributes is the product of the two after each is brought to mean 0 and deviation 1; the mean of the
    products is the correlation. If one of the two is the same in all rows, it is 0.

    Args:
        first: float64 (N,).
        second: float64 (N,).
        ranked: whether their ranks are correlated.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, *, ranked: bool) -> None:
        self._values = tuple(_Ranked(values) if ranked else _Plain(values) for values in (first, second))
        self._ranked = ranked
        ones = np.ones((1, len(first)))
        self.rows: np.ndarray = np.prod([_standard(values.of(ones), ones)[0] for values in self._values], axis=0)

    @property
    def error(self) -> float:
        """The standard error: Fisher's for Pearson, with the factor of Bonett and Wright (2000) for Spearman."""
        value = float(self.rows.mean())
        factor = 1 + value**2 / 2 if self._ranked else 1.0
        return (1 - value**2) * math.sqrt(factor / max(1, len(self.rows) - 3))

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The correlations."""
        first, second = (_standard(values.of(drawn), drawn) for values in self._values)
        values: np.ndarray = np.einsum("bn,bn,bn->b", first, second, drawn) / drawn.shape[1]
        return values


class _Plain:
    def __init__(self, values: np.ndarray) -> None:
        self._values = values[None]

    def of(self, drawn: np.ndarray) -> np.ndarray:
        """The values, (B, N) or (1, N)."""
        return self._values


class _Ranked:
    def __init__(self, values: np.ndarray) -> None:
        # Equal values are one group, and groups are numbered as their values rise.
        _, self._group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind="stable")
        self._ends = np.cumsum(sizes) - 1

    def of(self, drawn: np.ndarray) -> np.ndarray:
        """The ranks among what was drawn, (B, N): the average over what is equal."""
        upto = np.cumsum(drawn[:, self._order], axis=1)[:, self._ends]
        before = np.concatenate([np.zeros((len(drawn), 1)), upto[:, :-1]], axis=1)
        ranks: np.ndarray = ((before + upto + 1) / 2)[:, self._group]
        return ranks


def _standard(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Values with mean 0 and deviation 1 over what was drawn, or 0 where they are all the same."""
    count = drawn.shape[1]
    centred = values - (values * drawn).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt((np.square(centred) * drawn).sum(axis=1, keepdims=True) / count)
    # Of equal values rounding leaves a deviation that is nothing beside them.
    floor = 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    standard: np.ndarray = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > floor)
    return standard
