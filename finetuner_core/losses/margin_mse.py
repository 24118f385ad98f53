"""MarginMSE."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.scored import require_candidates, similarities


class MarginMSELoss(nn.Module):
    r"""Differences between candidates have to be those that a teacher sees.

    With s the similarities of an anchor's candidates, y the teacher's scores and c the scale, the mean over all anchors
    and all candidates k but the first of

        ( c (s_1 - s_k) - (y_1 - y_k) )^2

    (Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666). Similarities of embeddings of length 1 differ by 2 at
    most, which a teacher's logits may exceed by far: c makes up for it.

    Args:
        scale: c.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            scores: float (B, K) of K >= 2 candidates.
            ref_emb: float (B, K, D), of length 1.

        Raises:
            DataError: if there is one candidate only.
        """
        require_candidates(scores, "margin_mse")
        own = self.scale * similarities(embeddings, scores, ref_emb)
        teacher = scores.to(own.dtype)
        return F.mse_loss(own[:, :1] - own[:, 1:], teacher[:, :1] - teacher[:, 1:])
