"""Cosines that are brought to the scores."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.scored import similarities


class CosineLoss(nn.Module):
    r"""The cosine of a pair has to be its score.

    With s the cosines and y the scores, the mean over all pairs of

        (s - y)^2

    as Sentence-BERT regresses similarity (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084). Scores are to
    be in the range of cosines, from -1 to 1: what is higher can never be reached.
    """

    def forward(self, embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            scores: float (B, K).
            ref_emb: float (B, K, D), of length 1.
        """
        cosines = similarities(embeddings, scores, ref_emb)
        return F.mse_loss(cosines, scores.to(cosines.dtype))
