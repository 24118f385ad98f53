"""SigLIP."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.pairs import form_pairs


class SigLIPLoss(nn.Module):
    r"""Each pair is told apart by itself: whether it belongs together or not.

    With s the similarities (dot products), z_ij 1 for a positive pair and -1 for a negative one, a the scale and b the
    bias, both trained, and B the number of anchors (Zhai et al. 2023, https://arxiv.org/abs/2303.15343),

        1/B * sum over pairs (i, j): -log sigmoid( z_ij (a s_ij + b) )

    The bias starts low, since a batch has many times more negatives than positives.

    Args:
        scale: where a starts. It is kept as its logarithm, as in the paper.
        bias: where b starts.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    @property
    def scale(self) -> Tensor:
        """The scale as it now is, a scalar."""
        return self.log_scale.exp()

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
        logits = self.scale * embeddings @ references.T + self.bias
        likelihood = F.logsigmoid(logits)[positive].sum() + F.logsigmoid(-logits)[negative].sum()
        return -likelihood / max(1, len(embeddings))
