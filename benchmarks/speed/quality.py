"""How well pairs are found by their vectors, counted in the same way for everyone."""

from __future__ import annotations

import numpy as np


def retrieval(anchors: np.ndarray, positives: np.ndarray) -> dict[str, float]:
    """Each anchor looks for its positive among all of them.

    Args:
        anchors: float (N, D), in any length.
        positives: float (N, D), row by row what belongs to the anchors.

    Returns:
        `recall@1`, the share of anchors whose positive comes first, and `ndcg@10`, the mean of 1 / log2(1 + rank) over
        positives among the first ten (Järvelin and Kekäläinen 2002, with one relevant document).
    """
    similarities = _unit(anchors) @ _unit(positives).T
    # Of equal ones the own comes last, so that vectors which are all the same find nothing.
    ranks = (similarities >= np.diag(similarities)[:, None]).sum(axis=1)
    gains = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
    return {"recall@1": float((ranks == 1).mean()), "ndcg@10": float(gains.mean())}


def cosines(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The cosine of each vector (N, D) with that of the reference, float64 (N,)."""
    found: np.ndarray = np.einsum("nd,nd->n", _unit(vectors), _unit(reference))
    return found


def from_int8(levels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What quantised vectors stand for, where each component's range was cut into 255 steps: the middle of the step.

    Args:
        levels: int8 (N, D).
        vectors: float (N, D), those that were quantised, whose least and greatest values are the ranges.
    """
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    values: np.ndarray = low + (levels.astype(np.float32) + 128.5) * ((high - low) / 255)
    return values


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    unit: np.ndarray = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
