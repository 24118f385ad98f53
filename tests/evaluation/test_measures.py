from __future__ import annotations

import numpy as np
import pytest

from finetuner_core.evaluation import resampling
from finetuner_core.evaluation.measures import Correlation, Difference, Mean
from finetuner_core.evaluation.resampling import bootstrap

scipy_stats = pytest.importorskip("scipy.stats")


def draws(resamples: int, rows: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, rows, (resamples, rows))
    return np.stack([np.bincount(each, minlength=rows) for each in drawn]).astype(float)


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two values of each row that have to do with each other; some have ties."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 60))
    first = rng.normal(size=rows) * 100 + 1000
    second = first + rng.normal(size=rows) * rng.choice([10, 100, 1000])
    return (np.round(first, -2), np.round(second, -1)) if seed % 2 else (first, second)


def test_mean() -> None:
    values = np.random.default_rng(0).normal(size=30)
    drawn = draws(8, 30)
    expected = [np.repeat(values, counts.astype(int)).mean() for counts in drawn]
    assert Mean(values).resampled(drawn) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    first, second = case(seed)
    for ranked, theirs in ((True, scipy_stats.spearmanr), (False, scipy_stats.pearsonr)):
        if len(set(first)) == 1 or len(set(second)) == 1:
            continue
        own = Correlation(first, second, ranked=ranked)
        assert own.rows.shape == first.shape
        assert own.rows.mean() == pytest.approx(theirs(first, second).statistic, abs=1e-9)
        drawn = draws(20, len(first), seed)
        for counts, value in zip(drawn, own.resampled(drawn), strict=True):
            rows = np.repeat(np.arange(len(first)), counts.astype(int))
            if len(set(first[rows])) > 1 and len(set(second[rows])) > 1:
                assert value == pytest.approx(theirs(first[rows], second[rows]).statistic, abs=1e-9)
            else:
                assert value == 0


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("value", [0.1, 0.0, 1e6, -0.7])
def test_what_is_always_the_same_correlates_with_nothing(ranked: bool, value: float) -> None:
    same, other = np.full(7, value), np.arange(7.0)
    for pair in ((same, other), (other, same), (same, same)):
        assert Correlation(*pair, ranked=ranked).rows.tolist() == [0] * 7


@pytest.mark.parametrize("ranked", [True, False])
def test_the_interval_is_that_of_scipy(ranked: bool) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=150)
    second = np.round(first + rng.normal(size=150))
    own = Correlation(first, second, ranked=ranked)
    theirs = scipy_stats.spearmanr if ranked else scipy_stats.pearsonr
    expected = scipy_stats.bootstrap(
        (first, second), lambda x, y: theirs(x, y).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=3000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    low, high = bootstrap({"it": own})["it"]
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)
    # And that of the mean of what rows contribute, which stands in for it with very many, is as wide.
    assert 2 * 1.96 * own.rows.std() / 150**0.5 == pytest.approx(high - low, rel=0.2)


@pytest.mark.parametrize("ranked", [True, False])
def test_the_interval_of_a_difference_of_correlations(ranked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gold = rng.normal(size=1000)
    before, after = (
        Correlation(gold, gold + spread * rng.normal(size=1000), ranked=ranked) for spread in (0.8, 0.6)
    )  # fmt: skip
    gain = Difference(after, before)
    assert gain.rows.mean() == pytest.approx(after.rows.mean() - before.rows.mean())
    drawn = bootstrap({"it": gain})["it"]
    monkeypatch.setattr(resampling, "MANY", 999)
    computed = bootstrap({"it": gain})["it"]
    assert computed == pytest.approx(drawn, abs=0.1 * (drawn.high - drawn.low))
