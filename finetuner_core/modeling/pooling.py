"""One vector of each sequence of token features; padding never changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from finetuner_core.interfaces import Features, Pooling


class NativePooling(Pooling):
    """The backbone's own pooled vector, which arrives as a sequence of one token."""

    def forward(self, features: Features) -> Tensor:
        """The one token (B, D).

        Raises:
            ValueError: if there is more than one: the extractor did not pool.
        """
        if features.tokens.shape[1] != 1:
            raise ValueError(f"native pooling expects one token, but the extractor gave {features.tokens.shape[1]}.")
        return features.tokens[:, 0]


class MeanPooling(Pooling):
    """The mean of the real tokens, and zero where there are none."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        # Filled, not multiplied: padding may hold what is no number.
        real = features.tokens.masked_fill(~features.mask.unsqueeze(-1), 0)
        return real.sum(1) / features.mask.sum(1, keepdim=True).clamp(min=1)


class ClsPooling(Pooling):
    """The first real token, wherever the padding stands."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        first = features.mask.int().argmax(1)
        return features.tokens[range(len(first)), first]


class MaxPooling(Pooling):
    """The largest value of each feature over the real tokens."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        lowest = float("-inf")
        return features.tokens.masked_fill(~features.mask.unsqueeze(-1), lowest).amax(1)


POOLINGS: Mapping[str, Callable[[int], Pooling]] = {
    "native": NativePooling,
    "mean": MeanPooling,
    "cls": ClsPooling,
    "max": MaxPooling,
}
