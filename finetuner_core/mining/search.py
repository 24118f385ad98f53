"""The nearest documents of many queries, over a corpus of any size in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from finetuner_core.mining.task import Places


def nearest(
    queries: Tensor,
    blocks: Iterable[tuple[int, Tensor]],
    barred: Callable[[range], Iterable[Places]],
    k: int,
) -> tuple[Tensor, Tensor]:
    """The k documents with the highest dot product, for each of some queries.

    The best k so far are kept while the corpus goes by in blocks: of a block only what is better than the last of them
    is looked at. Equal scores are ordered by position.

    Args:
        queries: float32 (B, D).
        blocks: pieces of the corpus in their order, float32 (C, D), each with its first position.
        barred: for a range of positions the pairs that are never found, as places of queries and places in the range.
        k: how many.

    Returns:
        Scores, float32 (B, k), descending, and positions, int64 (B, k). Where there are fewer, minus infinity and -1.
    """
    size, device = len(queries), queries.device
    best = torch.full((size, k), float("-inf"), device=device)
    where = torch.full((size, k), -1, device=device)
    for start, block in blocks:
        scores = queries @ block.T
        for rows, columns in barred(range(start, start + len(block))):
            scores[torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)] = float("-inf")
        better = scores > best[:, -1:]
        if k < len(block) and int(torch.count_nonzero(better)) > 2 * k * size:
            # So many that it pays to find the block's own best first; of equal ones all are kept, for their order.
            better &= scores >= scores.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
        rows_of, columns_of = better.nonzero(as_tuple=True)  # row by row, and in each by position
        if not len(rows_of):
            continue
        counts = torch.bincount(rows_of, minlength=size)
        touched = counts.nonzero().squeeze(1)
        before = counts.cumsum(0) - counts
        line = torch.cumsum(counts > 0, 0)[rows_of] - 1
        column = k + torch.arange(len(rows_of), device=device) - before[rows_of]
        merged = torch.full((len(touched), k + int(counts.max())), float("-inf"), device=device)
        merged_where = torch.full_like(merged, -1, dtype=torch.int64)
        merged[:, :k], merged_where[:, :k] = best[touched], where[touched]
        merged[line, column] = scores[rows_of, columns_of]
        merged_where[line, column] = start + columns_of
        # Positions ascend from what was known to what is new, so that a stable order keeps them where scores are equal.
        ordered, order = merged.sort(dim=1, descending=True, stable=True)
        best[touched] = ordered[:, :k]
        where[touched] = merged_where.gather(1, order[:, :k])
    return best, where
