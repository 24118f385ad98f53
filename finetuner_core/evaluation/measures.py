"""Numbers about rows: a mean, or a correlation. Each can be computed again for rows that are drawn anew."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Measure(Protocol):
    """A number about rows, which are queries, or pairs with a score."""

    @property
    def rows(self) -> np.ndarray:
        """What each row contributes, float64 (N,): the number is their mean, and as sure as a mean of these."""
        ...

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The number, float64 (B,), if each row were there as often as it was drawn, float64 (B, N)."""
        ...


class Mean:
    """The mean of one value for each row, float64 (N,)."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The means."""
        means: np.ndarray = drawn @ self.rows / len(self.rows)
        return means


class Difference:
    """One number less another one of the same rows."""

    def __init__(self, first: Measure, second: Measure) -> None:
        self.rows: np.ndarray = first.rows - second.rows
        self._both = first, second

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The differences."""
        first, second = self._both
        difference: np.ndarray = first.resampled(drawn) - second.resampled(drawn)
        return difference


class Correlation:
    """Pearson's correlation of two values of each row, or Spearman's: that of their ranks, ties by average rank.

    With x and y the two after each is brought to mean 0 and deviation 1, and r the correlation, the mean of x y, a row
    contributes

        r + x y - r (x^2 + y^2) / 2

    whose mean is r as well, and which says how r moves with the row (its influence; Devlin, Gnanadesikan and Kettenring
    1975, https://doi.org/10.1093/biomet/62.3.531). If one of the two is the same in all rows, r is 0.

    Args:
        first: float64 (N,).
        second: float64 (N,).
        ranked: whether their ranks are correlated.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, *, ranked: bool) -> None:
        self._values = tuple(_Ranked(values) if ranked else _Plain(values) for values in (first, second))
        ones = np.ones((1, len(first)))
        x, y = (_standard(values.of(ones), ones)[0] for values in self._values)
        r = (x * y).mean()
        self.rows: np.ndarray = r + x * y - r * (x**2 + y**2) / 2

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
