"""Triplet loss, with the triplets mined from the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.pairs import distances, form_pairs, nothing


class TripletLoss(nn.Module):
    r"""An anchor has to be nearer to its positive than to a negative, by a margin.

    With d the Euclidean distance and m the margin, the mean over triplets (a, p, n) of

        max(0, d(a, p) - d(a, n) + m)

    Args:
        margin: m.
        mining: which triplets. `hard`: for each anchor its farthest positive and its nearest negative (Hermans et al.
            2017, https://arxiv.org/abs/1703.07737). `semihard`: for each anchor and positive all negatives that are
            farther than the positive, but by less than the margin (Schroff et al. 2015,
            https://arxiv.org/abs/1503.03832).
    """

    def __init__(self, *, margin: float = 0.2, mining: str = "hard") -> None:
        super().__init__()
        self.margin = margin
        self.mining = mining

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
        if self.mining == "hard":
            return self._hard(embeddings, distance, positive, negative)
        return self._semihard(embeddings, distance, positive, negative)

    def _hard(self, embeddings: Tensor, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        anchors = positive.any(1) & negative.any(1)
        if not anchors.any():
            return nothing(embeddings)
        farthest = distance.masked_fill(~positive, float("-inf")).amax(1)[anchors]
        nearest = distance.masked_fill(~negative, float("inf")).amin(1)[anchors]
        return F.relu(farthest - nearest + self.margin).mean()

    def _semihard(self, embeddings: Tensor, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        anchor, partner = torch.nonzero(positive, as_tuple=True)
        to_positive = distance[anchor, partner][:, None]
        to_negative = distance[anchor]
        semihard = negative[anchor] & (to_negative > to_positive) & (to_negative < to_positive + self.margin)
        if not semihard.any():
            return nothing(embeddings)
        return (to_positive - to_negative + self.margin)[semihard].mean()
