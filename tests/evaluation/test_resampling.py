from __future__ import annotations

import itertools

import numpy as np
import pytest

from finetuner_core.evaluation import resampling
from finetuner_core.evaluation.measures import Mean
from finetuner_core.evaluation.resampling import bootstrap, sign_flip

scipy_stats = pytest.importorskip("scipy.stats")


def skewed(seed: int, rows: int) -> np.ndarray:
    """Values such as reciprocal ranks: many are 1, and the rest is small."""
    rng = np.random.default_rng(seed)
    return 1 / np.ceil(rng.exponential(rng.choice([1, 4, 20]), rows))


def difference(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    mean: np.ndarray = np.mean(first - second, axis=axis)
    return mean


def p_value(differences: np.ndarray) -> float:
    return float(sign_flip(differences[None])[0])


def interval(values: np.ndarray) -> tuple[float, float]:
    return bootstrap({"it": Mean(values)})["it"]


@pytest.mark.parametrize("rows", [8, 60, 700])
def test_the_interval_is_that_of_scipy(rows: int) -> None:
    for seed in range(3):
        values = skewed(seed, rows)
        expected = scipy_stats.bootstrap(
            (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
        ).confidence_interval
        # Both are drawn: their ends move by about a thirtieth of a standard error.
        assert interval(values) == pytest.approx(tuple(expected), abs=0.12 * values.std() / rows**0.5)


def test_the_interval_is_the_same_each_time_and_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(0, 50)
    first = interval(values)
    assert first[0] < values.mean() < first[1]
    assert interval(values) == first
    for size in (1, 1234, 10_000_000):
        monkeypatch.setattr(resampling, "_AT_A_TIME", size)
        assert interval(values) == first


def test_the_interval_of_what_does_not_vary() -> None:
    assert interval(np.ones(5)) == (1, 1)
    assert interval(np.array([0.25])) == (0.25, 0.25)


def test_with_very_many_rows_the_interval_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(2, 3000)
    drawn = interval(values)
    monkeypatch.setattr(resampling, "MANY", 2999)
    computed = interval(values)
    assert computed == pytest.approx(drawn, abs=0.12 * values.std() / 3000**0.5)
    assert computed != drawn


def test_several_at_once_are_what_each_is_alone() -> None:
    values = {str(seed): skewed(seed, rows) for seed, rows in enumerate((40, 7, 40, 8, 40))}
    together = bootstrap({name: Mean(own) for name, own in values.items()})
    assert together == {name: interval(own) for name, own in values.items()}
    differences = np.stack([values[name] - values["0"][::-1] for name in "024"])
    differences[1, 5:] = 0
    assert sign_flip(differences).tolist() == [p_value(own) for own in differences]


def test_it_covers_what_is_true_in_about_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = interval(rng.exponential(1, 150))
        covered += low <= 1 <= high
    assert 178 <= covered <= 198


@pytest.mark.parametrize("count", [1, 2, 5, 11, 13])
def test_few_differences_are_flipped_in_all_ways(count: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        differences = np.round(rng.normal(0.3, 1, count), 1)  # rounded, so that sums are equal and some are 0
        flipped = [np.dot(signs, differences) for signs in itertools.product([1, -1], repeat=count)]
        seen = abs(differences.sum()) - 1e-9
        p = p_value(differences)
        assert p == pytest.approx(np.mean([abs(each) >= seen for each in flipped]))
        if count > 1:  # which scipy refuses
            expected = scipy_stats.permutation_test(
                (differences, np.zeros(count)), difference, permutation_type="samples", n_resamples=1 << 14
            )
            assert p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("rows", [20, 83, 400])
def test_many_differences_are_flipped_as_in_scipy(rows: int) -> None:
    for seed, shift in ((0, 0.0), (1, 0.1), (2, 0.25)):
        differences = np.random.default_rng(seed).normal(shift, 1, rows)
        expected = scipy_stats.permutation_test(
            (differences, np.zeros(rows)),
            difference,
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            rng=np.random.default_rng(1),
        ).pvalue
        p = p_value(differences)
        assert p == pytest.approx(expected, abs=4 * (max(expected, 0.001) / 10_000) ** 0.5)


def test_with_very_many_differences_p_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.02, 1, 3000)
    drawn = p_value(differences)
    assert 0.02 < drawn < 0.9
    monkeypatch.setattr(resampling, "MANY", 2999)
    assert p_value(differences) == pytest.approx(drawn, abs=0.02)


def test_p_of_no_difference_and_of_a_clear_one() -> None:
    assert p_value(np.zeros(7)) == 1
    assert p_value(np.array([1.0, -1.0])) == 1
    assert p_value(np.array([0.1, 0.2, 0.3, -0.6])) == 1  # whose sum is 1e-16 by rounding
    assert p_value(np.full(300, 0.1)) == 1 / 10_001
    # What did not change tells nothing.
    some = np.array([0.5, 0.25, -0.125, 0.5])
    assert p_value(np.concatenate([some, np.zeros(1000)])) == p_value(some)


def test_p_is_even_where_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    values = np.array([p_value(rng.normal(size=12)) for _ in range(300)])
    assert scipy_stats.kstest(values, "uniform").pvalue > 0.01
