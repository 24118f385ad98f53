"""Contrastive loss."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.pairs import distances, form_pairs, nothing


class ContrastiveLoss(nn.Module):
    r"""Positives are drawn together, and negatives pushed apart as long as they are nearer than a margin.

    With d the Euclidean distance and m the margin (Hadsell et al. 2006, https://doi.org/10.1109/CVPR.2006.100),

        mean over positive pairs of d^2  +  mean over negative pairs with d < m of (m - d)^2

    The two means are taken apart, since a batch has many times more negatives than positives.

    Args:
        margin: m; embeddings of length 1 are at most 2 apart.
    """

    def __init__(self, *, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        excluded: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            labels: int (B,).
            ref_emb: float (R, D), of length 1.
            ref_labels: int (R,).
            excluded: bool (B, R), or (B, B) without references: pairs that do not count.
        """
        references, positive, negative = form_pairs(embeddings, labels, ref_emb, ref_labels, excluded)
        distance = distances(embeddings, references)
        loss = nothing(embeddings)
        if positive.any():
            loss = loss + distance[positive].square().mean()
        near = negative & (distance < self.margin)
        if near.any():
            loss = loss + F.relu(self.margin - distance[near]).square().mean()
        return loss
