"""Whether a network has an embedding to give, and how wide it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetuner_core.plugin import FinetunerError


class NoEmbeddingError(FinetunerError):
    """An architecture that does not make one vector of an image."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} has no embedding to give: {reason}.\nUse one that gives a vector for an image: finetuner list")


def width_of(network: nn.Module, pixels: Tensor, name: str) -> int:
    """The width of the vectors that a network without its classifier makes of images (B, 3, H, W): it is measured.

    Raises:
        NoEmbeddingError: if what it makes are no vectors.
    """
    # Not in inference mode, whose tensors could not be trained with where a network keeps one.
    with torch.no_grad():
        emitted = network(pixels)
    if isinstance(emitted, Tensor) and emitted.ndim == 2 and len(emitted) == len(pixels):
        return emitted.shape[1]
    what = f"features of shape {tuple(emitted.shape[1:])}" if isinstance(emitted, Tensor) else f"a {type(emitted).__name__}"
    raise NoEmbeddingError(name, f"of an image it makes {what}, and not one vector")
