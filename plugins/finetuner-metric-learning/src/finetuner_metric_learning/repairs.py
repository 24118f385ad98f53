"""Losses of the library that go wrong on some batches that Finetuner makes, put right on those and unchanged elsewhere.

Each says what happens without it, as seen in pytorch-metric-learning 2.9.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pytorch_metric_learning import losses
from torch import Tensor

from finetuner_core.plugin import DataError

# Cosines nearer to 1 than this are taken for this, where 1 itself has no bin, or no gradient.
_NEARLY_ONE = 1 - 1e-6


class DynamicSoftMarginLoss(losses.DynamicSoftMarginLoss):  # type: ignore[misc]
    """The histogram carries a step's graph into the next, whose backward then fails; what is beyond it has no bin."""

    hist_: Tensor

    def update_histogram(self, data: Tensor) -> None:
        """Adds the differences of distances (N,) of a batch."""
        self.hist_ = self.hist_.detach()
        super().update_histogram(self._within(data))

    def weigh_loss(self, data: Tensor) -> Tensor:
        """Each difference (N,), weighed by the share of those so far that were less."""
        bins = torch.floor((self._within(data) - self.min_val) / self.delta).long()
        return self.hist_.cumsum(0)[bins] * data

    def _within(self, data: Tensor) -> Tensor:
        return data.clamp(self.min_val, self.min_val + self.delta * (self.num_bins - 1 - 1e-4))


class HistogramLoss(losses.HistogramLoss):  # type: ignore[misc]
    """Two equal items, whose similarity is 1, fall outside of the histogram; and torch warns of how it is indexed."""

    def compute_density(self, distances: Tensor) -> Tensor:
        """The histogram (bins,) of similarities (N,)."""
        density: Tensor = super().compute_density(distances.clamp(-1, _NEARLY_ONE))
        return density

    def forward(self, *arguments: Any) -> Tensor:
        """The loss, a scalar."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
            value: Tensor = super().forward(*arguments)
        return value


class MarginLoss(losses.MarginLoss):  # type: ignore[misc]
    """The boundaries of classes, where they are not trained, stay on the CPU whatever device the loss is moved to."""

    def initialize_beta(self, beta: float, num_classes: int | None) -> None:
        """Makes the boundary, or one for each class."""
        super().initialize_beta(beta, num_classes)
        if not self.learn_beta:
            boundaries = self.beta
            del self.beta
            self.register_buffer("beta", boundaries, persistent=False)


class NCALoss(losses.NCALoss):  # type: ignore[misc]
    """A batch without positives gives the mean of nothing, which is no number."""

    def compute_loss(self, *arguments: Any) -> Any:
        """The losses of the items, by the library's name."""
        found = super().compute_loss(*arguments)
        alone = isinstance(found["loss"]["losses"], Tensor) and found["loss"]["losses"].numel() == 0
        return self.zero_losses() if alone else found


class SmoothAPLoss(losses.SmoothAPLoss):  # type: ignore[misc]
    """Labels have to be in order, and as many as there are items of each: else it is computed over the wrong groups."""

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Any = None, *references: Any) -> Tensor:
        """The loss, a scalar."""
        sizes = torch.unique(labels, return_counts=True)[1].tolist()
        if len(sizes) < 2 or max(sizes) < 2:
            return embeddings.sum() * 0  # Nothing stands before a positive, or there is none.
        if sizes != [len(sizes)] * len(sizes):
            items = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            raise DataError(
                f"SmoothAPLoss needs batches of n classes of n items; this one has {len(sizes)} of {items} items.\n"
                "Take batch_size=16, which gives 4 classes of 4 items where there are as many, or another loss."
            )
        order = torch.argsort(labels, stable=True)
        if indices is not None:
            indices = tuple(torch.argsort(order)[index] for index in indices)
        value: Tensor = super().forward(embeddings[order], labels[order], indices, *references)
        return value


class TupletMarginLoss(losses.TupletMarginLoss):  # type: ignore[misc]
    """The angle between two equal items has no gradient, and rounding can make it no number."""

    def _compute_loss(self, pos_pairs: Any, neg_pairs: Any, indices: Any) -> Any:
        if isinstance(pos_pairs, Tensor):
            pos_pairs = pos_pairs.clamp(-_NEARLY_ONE, _NEARLY_ONE)
        return super()._compute_loss(pos_pairs, neg_pairs, indices)


REPAIRED: dict[str, Any] = {
    repaired.__name__: repaired
    for repaired in (DynamicSoftMarginLoss, HistogramLoss, MarginLoss, NCALoss, SmoothAPLoss, TupletMarginLoss)
}
"""By the name of the class of the library."""
