"""The one way from prepared items to embeddings: in chunks of items of like length.

Encoding, training and chunked gradients all go it, and differ in what they keep of each chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from finetuner_core.interfaces import Batch, Prepared
from finetuner_core.modeling.encoder import Encoder

# An image counts for as many tokens as a vision transformer would usually make of it.
_PATCH = 16 * 16


class Collate(Protocol):
    """The half of a preprocess that is needed here."""

    def length(self, prepared: Prepared) -> int:
        """How many tokens the network will see of it."""
        ...

    def collate(self, prepared: Sequence[Prepared]) -> Batch:
        """Makes the tensors of one batch."""
        ...


@dataclass(frozen=True)
class Limit:
    """How much is computed at once.

    Args:
        tokens: the most tokens, padding included where the network computes it. A longer item is computed alone.
        items: the most items, `None` for any number.
    """

    tokens: int
    items: int | None = None


def tokens_at_once(device: torch.device) -> int:
    """How many tokens to compute at once where memory does not matter: enough to fill the device, and no more.

    On a CPU what lies between two layers then stays in its cache, and little of a chunk is padding.
    """
    return 2048 if device.type == "cpu" else 32768


def chunks(encoder: Encoder, preprocess: Collate, prepared: Sequence[Prepared], limit: Limit) -> list[list[int]]:
    """Which items are computed together: those of like length, the longest first.

    Args:
        encoder: tells whether padding is computed.
        preprocess: tells how long the items are.
        prepared: the items.
        limit: of each chunk.

    Returns:
        The positions of the items, each in one chunk.
    """
    lengths = tokens_of(preprocess, prepared)
    found: list[list[int]] = []
    tokens = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        # Every item of a chunk is padded to its first, where padding is computed.
        tokens += lengths[position] if encoder.padding_free or not found else lengths[found[-1][0]]
        if not found or tokens > limit.tokens or len(found[-1]) == limit.items:
            found.append([])
            tokens = lengths[position]
        found[-1].append(position)
    return found


def tokens_of(preprocess: Collate, prepared: Sequence[Prepared]) -> list[int]:
    """How many tokens each item is, to compare what there is to compute."""
    size: tuple[int, int] | None = getattr(preprocess, "image_size", None)
    if size is not None:
        return [-(-size[0] * size[1] // _PATCH)] * len(prepared)
    return [preprocess.length(item) for item in prepared]


def embed_chunk(encoder: Encoder, preprocess: Collate, prepared: Sequence[Prepared], device: torch.device) -> Tensor:
    """Embeddings of some items that are computed together, float32 (B, output_dim), each of length 1."""
    batch = preprocess.collate(prepared)
    vectors: Tensor = encoder({name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()})
    return vectors


def in_order(chunks: Sequence[Sequence[int]], vectors: Sequence[Tensor]) -> Tensor:
    """The vectors of all chunks in the order of their items."""
    if len(chunks) == 1 and list(chunks[0]) == sorted(chunks[0]):
        return vectors[0]
    positions = torch.tensor([position for chunk in chunks for position in chunk])
    return torch.cat(list(vectors))[positions.argsort().to(vectors[0].device)]
