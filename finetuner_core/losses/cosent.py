"""CoSENT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetuner_core.losses.scored import similarities


class CoSENTLoss(nn.Module):
    r"""Of two pairs the one with the higher score has to be the nearer one.

    With s the cosines, y the scores and t the temperature, over all pairs i, j of the batch (Su 2022,
    https://kexue.fm/archives/8847; Huang et al. 2024, https://doi.org/10.1109/TASLP.2024.3402087),

        log( 1 + sum over i, j with y_i > y_j: exp((s_j - s_i) / t) )

    Only the order of scores counts, so that they can be in any unit. Where an anchor has several candidates, each of
    them makes a pair with it.

    Args:
        temperature: t.
    """

    def __init__(self, *, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            scores: float (B, K).
            ref_emb: float (B, K, D), of length 1.
        """
        cosines = similarities(embeddings, scores, ref_emb).flatten()
        better = scores.flatten()[:, None] > scores.flatten()[None, :]
        terms = (cosines[None, :] - cosines[:, None])[better] / self.temperature
        # exp(0) is the 1 of the sum.
        return torch.cat([terms.new_zeros(1), terms]).logsumexp(0)
