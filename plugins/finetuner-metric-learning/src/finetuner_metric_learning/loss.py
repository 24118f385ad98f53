"""A loss of the library behind the contract's signature."""

from __future__ import annotations

from torch import Tensor, nn

from finetuner_core.plugin import DataError


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
        self.loss, self.miner, self.pairs, self.num_classes = loss, miner, pairs, num_classes

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
        indices = self.miner(embeddings, labels, ref_emb, ref_labels) if self.miner is not None else None
        value: Tensor = self.loss(embeddings, labels, indices, ref_emb, ref_labels)
        return value
