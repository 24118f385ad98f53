"""Kullback-Leibler divergence from a teacher's distribution over candidates."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.scored import require_candidates, similarities


class KLLoss(nn.Module):
    r"""The distribution over an anchor's candidates has to be the teacher's.

    With s the similarities of an anchor's candidates, y the teacher's scores, t and u the two temperatures, p the
    softmax of y / u and q the softmax of s / t, the mean over all anchors of

        t^2 * sum over candidates k: p_k log(p_k / q_k)

    (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, where t^2 keeps gradients as large whatever t is).

    Args:
        temperature: t. Similarities of embeddings of length 1 are close together, so that it is to be small.
        teacher_temperature: u; the higher it is, the more even the distribution.
    """

    def __init__(self, *, temperature: float = 0.05, teacher_temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature

    def forward(self, embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            scores: float (B, K) of K >= 2 candidates.
            ref_emb: float (B, K, D), of length 1.

        Raises:
            DataError: if there is one candidate only.
        """
        require_candidates(scores, "kl")
        own = similarities(embeddings, scores, ref_emb) / self.temperature
        teacher = scores.to(own.dtype) / self.teacher_temperature
        divergence = F.kl_div(own.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
        return divergence * self.temperature**2
