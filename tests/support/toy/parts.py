"""A pooling and a loss of the toy plugin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetuner_core.interfaces import Features, Pooling
from toy import fault


class Scaled(Pooling):
    """The mean of the real tokens, each feature times a trained scale."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim + 1 if fault("pooling: width misreported") else dim)
        self.scale = nn.Parameter(torch.ones(dim))
        self.spare = nn.Parameter(torch.ones(1)) if fault("pooling: parameter unused") else None

    def forward(self, features: Features) -> Tensor:
        mask = torch.ones_like(features.mask) if fault("pooling: mask ignored") else features.mask
        count = mask.sum(1, keepdim=True) - (1 if fault("pooling: one token too few") else 0)
        return (features.tokens * mask.unsqueeze(-1)).sum(1) / count * self.scale


class Spread(nn.Module):
    """The mean similarity of different items, less that of like ones."""

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        excluded: Tensor | None = None,
    ) -> Tensor:
        if fault("loss: references ignored"):
            ref_emb, ref_labels = None, None
        same = labels[:, None] == (labels if ref_labels is None else ref_labels)
        similar = embeddings @ (embeddings if ref_emb is None else ref_emb).T
        pairs = torch.ones_like(same) if ref_emb is not None else ~torch.eye(len(labels), dtype=torch.bool)
        if excluded is not None and not fault("loss: excluded ignored"):
            pairs = pairs & ~excluded
        if fault("loss: labels as numbers"):
            similar = similar * labels
        values = torch.where(same, -similar, similar)[pairs]
        if fault("loss: one for each pair"):
            return values
        if fault("loss: detached"):
            return values.detach().mean() + embeddings.sum() * 0
        if not len(values) and not fault("loss: mean of nothing"):
            return embeddings.sum() * 0
        return values.mean()


class Ranked(nn.Module):
    """How far the similarities of candidates are from their scores."""

    def forward(self, embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
        similar = (embeddings[:, None] * ref_emb).sum(2)
        if fault("loss: scores ignored"):
            scores = torch.ones_like(scores)
        if fault("loss: divided by the spread of scores"):
            scores = scores / scores.std()
        return (similar - scores).abs().mean()
