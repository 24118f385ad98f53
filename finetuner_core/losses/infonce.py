"""InfoNCE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.pairs import Pairs, form_pairs, nothing

MIN_TEMPERATURE = 0.01


class InfoNCELoss(nn.Module):
    r"""Each positive has to win against all negatives of its anchor.

    With s the similarities (dot products) and t the temperature, the mean over all positive pairs (i, j) of

        -log( exp(s_ij / t) / ( exp(s_ij / t) + sum over negatives k of i: exp(s_ik / t) ) )

    Where an anchor has one positive this is InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748); with
    several it is NT-Xent over all of them, each against the negatives alone (Chen et al. 2020,
    https://arxiv.org/abs/2002.05709). Symmetric and with a learnable temperature it is CLIP's (Radford et al. 2021,
    https://arxiv.org/abs/2103.00020).

    Args:
        temperature: t, or where it starts if it is learnable.
        learnable: whether t is trained. It is kept as its logarithm, and at 0.01 or more, as in CLIP.
        symmetric: whether references are anchors as well, and the mean of both directions is taken.
    """

    def __init__(self, *, temperature: float = 0.05, learnable: bool = False, symmetric: bool = False) -> None:
        super().__init__()
        self.symmetric = symmetric
        log_temperature = torch.tensor(math.log(temperature))
        if learnable:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature)

    @property
    def temperature(self) -> Tensor:
        """The temperature as it now is, a scalar."""
        return self.log_temperature.exp()

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
        pairs = form_pairs(embeddings, labels, ref_emb, ref_labels, excluded)
        if not pairs.positive.any():
            return nothing(embeddings)
        if self.log_temperature.requires_grad:
            # In place, since a clamp in the graph would have no gradient that leads back from the bound.
            with torch.no_grad():
                self.log_temperature.clamp_(min=math.log(MIN_TEMPERATURE))
        logits = embeddings @ pairs.ref_emb.T / self.temperature
        loss = _mean_over_positives(logits, pairs)
        if self.symmetric and ref_emb is not None:
            turned = Pairs(embeddings, pairs.positive.T, pairs.negative.T)
            loss = (loss + _mean_over_positives(logits.T, turned)) / 2
        return loss


def _mean_over_positives(logits: Tensor, pairs: Pairs) -> Tensor:
    # -log(e^p / (e^p + e^n)) is softplus(n - p), with n the log-sum-exp of the negatives.
    # The mask is finite: an anchor without negatives then has loss 0 and gradient 0, and not a NaN.
    lowest = torch.finfo(logits.dtype).min
    negatives = logits.masked_fill(~pairs.negative, lowest).logsumexp(1, keepdim=True)
    return F.softplus((negatives - logits)[pairs.positive]).mean()
