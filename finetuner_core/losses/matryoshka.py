"""Matryoshka: the first features of an embedding are an embedding too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F


class MatryoshkaLoss(nn.Module):
    r"""The sum over widths of a loss of the first features, brought to length 1 again.

    With e[:d] the first d features of embeddings e, L_d the loss of a width and c_d its weight (Kusupati et al. 2022,
    https://arxiv.org/abs/2205.13147),

        sum over widths d: c_d L_d( e[:d] / |e[:d]| )

    It is called as the losses are, with data of whatever form they take.

    Args:
        losses: the loss of each width. One that has parameters may have others for each.
        weights: of each width; 1 where none is given.
    """

    def __init__(self, losses: Mapping[int, nn.Module], weights: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.losses = nn.ModuleDict({str(width): loss for width, loss in losses.items()})
        self.weights = {width: (weights or {}).get(width, 1.0) for width in losses}

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
            labels: int (B,), or scores float (B, K).
            ref_emb: float (R, D), of length 1, or candidates (B, K, D).
            ref_labels: int (R,).
            excluded: bool (B, R), or (B, B) without references: pairs that do not count. A loss that takes none must
                not be given any.
        """
        more = {
            name: value for name, value in (("ref_labels", ref_labels), ("excluded", excluded)) if value is not None
        }
        total = embeddings.new_zeros(())
        for width, weight in self.weights.items():
            references = {} if ref_emb is None else {"ref_emb": _first(ref_emb, width)}
            value = self.losses[str(width)](_first(embeddings, width), labels, **references, **more)
            total = total + weight * value
        return total


def matryoshka(
    build: Callable[[int], nn.Module], widths: Iterable[int], weights: Mapping[int, float] | None = None
) -> MatryoshkaLoss:
    """A loss over several widths, each with its own from a builder.

    Args:
        build: makes the loss of a width.
        widths: how many of the first features make an embedding, for each.
        weights: of each width; 1 where none is given.
    """
    return MatryoshkaLoss({width: build(width) for width in widths}, weights)


def _first(embeddings: Tensor, width: int) -> Tensor:
    return F.normalize(embeddings[..., :width], dim=-1)
