"""Exact search, and at which ranks it finds what is relevant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

# Similarities held at a time: 2^22 float32, 16 MiB, and with the order and the ranks five times as much.
_SCORES_AT_A_TIME = 1 << 22


def ranks_of_relevant(
    queries: np.ndarray,
    corpus: np.ndarray,
    relevant: Callable[[int], np.ndarray],
    *,
    leave_one_out: bool = False,
) -> Iterator[np.ndarray]:
    """Searches the whole corpus for each query by cosine similarity.

    Ties are broken by position in the corpus, so that the answer is always the same.

    Args:
        queries: float32 (Q, D), rows of length 1.
        corpus: float32 (N, D), rows of length 1.
        relevant: for the number of a query the positions of its relevant items in the corpus.
        leave_one_out: whether queries and corpus are the same items; a query then does not find itself.

    Yields:
        For each query that has relevant items, their ranks, int64, in rising order; 1 is the first.
    """
    documents = torch.from_numpy(corpus)
    chunk = max(1, _SCORES_AT_A_TIME // max(1, len(corpus)))
    for start in range(0, len(queries), chunk):
        scores = torch.from_numpy(queries[start : start + chunk]) @ documents.T
        if leave_one_out:
            rows = torch.arange(len(scores))
            scores[rows, start + rows] = float("-inf")
        order = scores.argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty_like(order)
        ranks.scatter_(1, order, torch.arange(1, len(corpus) + 1).expand_as(order))
        for row, found in enumerate(ranks.numpy()):
            positions = relevant(start + row)
            if len(positions):
                yield np.sort(found[positions])
