from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from finetuner_core.evaluation.metrics import (
    NAMES,
    average_precision,
    hit_at,
    ndcg_at,
    recall_at,
    reciprocal_rank,
    summarise,
)


def random_case(seed: int) -> tuple[list[bool], np.ndarray]:
    """A result list, as whether each item is relevant, and the ranks of those that are."""
    rng = random.Random(seed)
    length = rng.choice([1, 3, 10, 40])
    found = [rng.random() < rng.choice([0.1, 0.5, 0.9]) for _ in range(length)]
    found[rng.randrange(length)] = True
    return found, np.array([rank for rank, relevant in enumerate(found, 1) if relevant])


def naive(found: list[bool]) -> dict[str, float]:
    """Every metric by the formula of its definition, walking down the result list."""
    total = sum(found)
    values: dict[str, float] = {}
    for k in (1, 5, 10):
        values[f"share@{k}"] = sum(found[:k]) / total
        values[f"hit@{k}"] = 1.0 if any(found[:k]) else 0.0
        gain = sum(1 / math.log2(rank + 1) for rank, relevant in enumerate(found[:k], 1) if relevant)
        best = sum(
            1 / math.log2(rank + 1) for rank, _ in enumerate(sorted(found, reverse=True)[:k], 1) if rank <= total
        )
        values[f"ndcg@{k}"] = gain / best
    values["mrr"] = 1 / (found.index(True) + 1)
    precisions = [sum(found[:rank]) / rank for rank, relevant in enumerate(found, 1) if relevant]
    values["map"] = sum(precisions) / total
    return values


@pytest.mark.parametrize("seeds", [range(0, 150), range(150, 300)])
def test_agree_with_a_naive_walk_down_the_list(seeds: range) -> None:
    for seed in seeds:
        found, ranks = random_case(seed)
        expected = naive(found)
        for k in (1, 5, 10):
            assert recall_at(ranks, k) == pytest.approx(expected[f"share@{k}"])
            assert hit_at(ranks, k) == expected[f"hit@{k}"]
            assert ndcg_at(ranks, k) == pytest.approx(expected[f"ndcg@{k}"])
        assert reciprocal_rank(ranks) == pytest.approx(expected["mrr"])
        assert average_precision(ranks) == pytest.approx(expected["map"])


def test_agree_with_scikit_learn() -> None:
    for seed in range(100):
        found, ranks = random_case(seed)
        scores = -np.arange(len(found), dtype=float)
        assert average_precision(ranks) == pytest.approx(average_precision_score(found, scores))
        if len(found) > 1:  # ndcg_score takes no list of one
            for k in (1, 5, 10):
                assert ndcg_at(ranks, k) == pytest.approx(ndcg_score([found], [scores], k=k))


def test_by_hand() -> None:
    ranks = np.array([2, 3, 12])
    assert recall_at(ranks, 1) == 0
    assert recall_at(ranks, 2) == pytest.approx(1 / 3)
    assert recall_at(ranks, 10) == pytest.approx(2 / 3)
    assert [hit_at(ranks, k) for k in (1, 2, 10)] == [0, 1, 1]
    assert reciprocal_rank(ranks) == 0.5
    assert average_precision(ranks) == pytest.approx((1 / 2 + 2 / 3 + 3 / 12) / 3)
    # Gains at ranks 2 and 3, over those of ranks 1, 2 and 3: log2(2) = 1, log2(4) = 2.
    assert ndcg_at(ranks, 10) == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2))
    # With more relevant items than places, the best order fills the places.
    assert ndcg_at(np.arange(1, 21), 10) == 1
    assert recall_at(np.arange(1, 21), 10) == 0.5


def test_the_best_and_the_worst() -> None:
    assert set(summarise([np.array([1]), np.array([1, 2])], any_relevant=True).values()) == {1.0}
    worst = summarise([np.array([1000])], any_relevant=False)
    assert (worst["recall@10"], worst["ndcg@10"], worst["mrr"], worst["map"]) == (0, 0, 0.001, 0.001)


@pytest.mark.parametrize("any_relevant", [True, False])
def test_summary_is_the_mean_over_queries(any_relevant: bool) -> None:
    cases = [random_case(seed) for seed in range(40)]
    summary = summarise([ranks for _, ranks in cases], any_relevant=any_relevant)
    assert tuple(summary) == NAMES == ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map")
    values = [naive(found) for found, _ in cases]
    for name, value in summary.items():
        own = name.replace("recall", "hit" if any_relevant else "share")
        assert type(value) is float
        assert value == pytest.approx(sum(each[own] for each in values) / len(values))


def test_with_one_relevant_item_both_recalls_are_the_same() -> None:
    ranks = [np.array([rank]) for rank in (1, 1, 4, 6, 11)]
    assert summarise(ranks, any_relevant=True) == summarise(ranks, any_relevant=False)
    several = [np.array([1, 20])]
    assert summarise(several, any_relevant=True)["recall@1"] == 1
    assert summarise(several, any_relevant=False)["recall@1"] == 0.5
