"""Which pairs of a batch belong together and which do not, and how far apart they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """The pairs between embeddings and references.

    `ref_emb` (R, D) are the references; `positive` and `negative`, bool (B, R), say which pairs have equal and which
    have different labels. An item is neither its own positive nor its own negative, and an excluded pair is neither.
    """

    ref_emb: Tensor
    positive: Tensor
    negative: Tensor


def form_pairs(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    excluded: Tensor | None = None,
) -> Pairs:
    """Forms the pairs of a batch.

    Args:
        embeddings: float (B, D).
        labels: int (B,).
        ref_emb: float (R, D), or `None` for pairs among the embeddings themselves.
        ref_labels: int (R,), given with `ref_emb`.
        excluded: bool (B, R), or (B, B) without references: pairs that are neither, whatever their labels.

    Raises:
        ValueError: if only one of `ref_emb` and `ref_labels` is given, or a length differs.
    """
    if (ref_emb is None) != (ref_labels is None):
        raise ValueError("ref_emb and ref_labels go together: give both or neither.")
    if len(embeddings) != len(labels) or (ref_emb is not None and len(ref_emb) != len(ref_labels)):  # type: ignore[arg-type]
        raise ValueError("Every embedding needs one label.")
    same = labels[:, None] == (labels if ref_labels is None else ref_labels)[None, :]
    counts = torch.ones_like(same)
    if excluded is not None:
        if excluded.shape != same.shape:
            raise ValueError(f"excluded is {tuple(excluded.shape)}, and the pairs are {tuple(same.shape)}.")
        counts = ~excluded
    if ref_emb is None:
        counts = counts & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return Pairs(embeddings if ref_emb is None else ref_emb, same & counts, ~same & counts)


def distances(embeddings: Tensor, ref_emb: Tensor) -> Tensor:
    """Euclidean distances (B, R) between rows.

    The gradient at distance 0, where the square root has none, is 0: two equal items are as near as they can be.
    """
    squared = (
        embeddings.square().sum(1)[:, None] + ref_emb.square().sum(1)[None, :] - 2 * embeddings @ ref_emb.T
    ).clamp(min=0)
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def nothing(embeddings: Tensor) -> Tensor:
    """A zero that can be differentiated, for a batch in which no pair can be formed."""
    return embeddings.sum() * 0
