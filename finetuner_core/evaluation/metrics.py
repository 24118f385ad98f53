"""Retrieval metrics, from the ranks at which the relevant items of each query were found.

A rank is 1 for the item found first. The formulas are those of Manning, Raghavan and Schütze, Introduction to
Information Retrieval (2008), chapter 8, https://nlp.stanford.edu/IR-book/, with binary relevance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

CUTOFFS = (1, 5, 10)
NDCG_CUTOFF = 10
NAMES = (*(f"recall@{k}" for k in CUTOFFS), "mrr", f"ndcg@{NDCG_CUTOFF}", "map")


def summarise(ranks: Iterable[np.ndarray], *, any_relevant: bool) -> dict[str, float]:
    """The means over all queries of every metric.

    Args:
        ranks: for each query the ranks of all of its relevant items, int, in rising order, at least one.
        any_relevant: what recall@k means. False: the share of a query's relevant items that are among the first k.
            True: whether at least one is, the Recall@K of metric learning (Song et al. 2016,
            https://arxiv.org/abs/1511.06452). Where each query has one relevant item they are the same.

    Returns:
        By name, in the order of `NAMES`, numbers between 0 and 1.
    """
    recalled = hit_at if any_relevant else recall_at
    # Query by query, since the ranks of all of them together would need memory for every relevant pair.
    values = [
        (
            *(recalled(found, k) for k in CUTOFFS),
            reciprocal_rank(found),
            ndcg_at(found, NDCG_CUTOFF),
            average_precision(found),
        )
        for found in ranks
    ]
    return {name: float(mean) for name, mean in zip(NAMES, np.mean(values, axis=0), strict=True)}


def recall_at(ranks: np.ndarray, k: int) -> float:
    """The share of the relevant items that are among the first k."""
    return float((ranks <= k).mean())


def hit_at(ranks: np.ndarray, k: int) -> float:
    """1 if a relevant item is among the first k, else 0."""
    return float(ranks[0] <= k)


def reciprocal_rank(ranks: np.ndarray) -> float:
    """1 over the rank of the first relevant item."""
    return float(1 / ranks[0])


def ndcg_at(ranks: np.ndarray, k: int) -> float:
    """The discounted gain of the first k, over that of the best order: each relevant item counts 1 / log2(rank + 1)."""
    gain = (1 / np.log2(ranks[ranks <= k] + 1)).sum()
    best = (1 / np.log2(np.arange(1, min(k, len(ranks)) + 1) + 1)).sum()
    return float(gain / best)


def average_precision(ranks: np.ndarray) -> float:
    """The mean, over the relevant items, of the precision at the rank of each, down to the last."""
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())
