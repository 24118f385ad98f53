"""A loss of the library behind the contract's signature."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor, nn

from finetuner_core.plugin import DataError

Indices = tuple[Tensor, ...]
"""What the library calls so: anchors, positives and negatives of triplets, or anchors and positives, anchors and
negatives of pairs."""


class MinedLoss(nn.Module):
    """A loss of the library, over the pairs that a miner of the library chooses.

    Args:
        loss: called `loss(embeddings, labels, indices, ref_emb, ref_labels)`.
        miner: called `miner(embeddings, labels, ref_emb, ref_labels)`; its result is the loss's `indices`.
        pairs: whether the loss can be formed between embeddings and references.
        num_classes: how many classes the loss knows, where it does.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None, *, pairs: bool, num_classes: int | None) -> None:
        super().__init__()
        self.loss: Any = loss
        self.miner, self.pairs, self.num_classes = miner, pairs, num_classes

    def forward(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None = None, ref_labels: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of length 1.
            labels: int (B,).
            ref_emb: float (R, D), of length 1.
            ref_labels: int (R,).

        Raises:
            DataError: if the loss cannot be formed between two sets of embeddings, or does not know a label.
        """
        self._check(labels, ref_emb)
        value: Tensor = self.loss(
            embeddings, labels, self._mine(embeddings, labels, ref_emb, ref_labels), ref_emb, ref_labels
        )
        return value

    def _check(self, labels: Tensor, ref_emb: Tensor | None) -> None:
        name = type(self.loss).__name__
        if ref_emb is not None and (not self.pairs or self.num_classes):
            raise DataError(
                f"{name}, as its options are, learns from items with labels, and these data are pairs.\n"
                "Give labelled data, or take a loss for pairs such as NTXentLoss or MultiSimilarityLoss."
            )
        if self.num_classes and len(labels) and int(labels.max()) >= self.num_classes:
            raise DataError(
                f"{name} has num_classes={self.num_classes}, and there is a label number {int(labels.max())}.\n"
                "Set num_classes to the number of different labels in the training data."
            )

    def _mine(self, *batch: Tensor | None) -> Indices | None:
        indices: Indices | None = None if self.miner is None else self.miner(*batch)
        return indices


class MaskedLoss(MinedLoss):
    """One that the library forms of nothing but the pairs that it is handed, so that some can be left out.

    What is excluded is taken out of what the miner has chosen: a miner that chooses one pair for each anchor may have
    chosen that.
    """

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

        Raises:
            DataError: if the loss cannot be formed between two sets of embeddings, or does not know a label.
        """
        if excluded is None or not excluded.any():
            return super().forward(embeddings, labels, ref_emb, ref_labels)
        self._check(labels, ref_emb)
        indices = self._mine(embeddings, labels, ref_emb, ref_labels)
        if indices is None:
            indices = self._all(labels, ref_labels)
        value: Tensor = self.loss(embeddings, labels, _without(excluded, indices), ref_emb, ref_labels)
        return value

    def _all(self, labels: Tensor, ref_labels: Tensor | None) -> Indices:
        """What the library itself would take: all pairs, or as many triplets of each anchor as were asked for."""
        drawn = getattr(self.loss, "triplets_per_anchor", "all")
        indices: Indices = (
            loss_and_miner_utils.get_all_pairs_indices(labels, ref_labels)
            if drawn == "all"
            else loss_and_miner_utils.get_random_triplet_indices(labels, ref_labels, t_per_anchor=drawn)
        )
        return indices


def _without(excluded: Tensor, indices: Indices) -> Indices:
    if len(indices) == 3:
        anchors, positives, negatives = indices
        kept = ~(excluded[anchors, positives] | excluded[anchors, negatives])
        return anchors[kept], positives[kept], negatives[kept]
    anchors, positives, others, negatives = indices
    kept, kept_others = ~excluded[anchors, positives], ~excluded[others, negatives]
    return anchors[kept], positives[kept], others[kept_others], negatives[kept_others]
