"""Vectors of columns, and shorter ones of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finetuner_core.data.dataset import Column
from finetuner_core.values import Side

# Encodes what asks, what is found, or what is both.
Encode = Callable[[Column, Side | None], np.ndarray]


def shortened(vectors: np.ndarray, width: int | None) -> np.ndarray:
    """The first components of vectors, brought to length 1 again.

    Args:
        vectors: float32 (N, D), rows of length 1.
        width: how many components; `None` for all, which leaves them as they are.
    """
    if width is None:
        return vectors
    cut = vectors[:, :width]
    normed: np.ndarray = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return normed
