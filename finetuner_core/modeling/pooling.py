"""One vector of each sequence of token features; padding never changes it, and one token alone is its own vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from finetuner_core.errors import OptionError
from finetuner_core.interfaces import Features, Pooling

_LOWEST = float("-inf")


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
        return _mean(features.tokens, features.mask)


class MaxPooling(Pooling):
    """The largest value of each feature over the real tokens."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        return features.tokens.masked_fill(~features.mask.unsqueeze(-1), _LOWEST).amax(1)


class GemPooling(Pooling):
    r"""The generalised mean of the real tokens: with power p, (mean over tokens of x^p)^(1/p), feature by feature.

    p = 1 is the mean, and the larger p, the nearer it comes to the maximum (Radenovic et al. 2018,
    https://arxiv.org/abs/1711.02512). As there, features below 1e-6 count as 1e-6: it is meant for the activations of a
    CNN, few of which are negative.

    Args:
        dim: width of the features.
        p: the power that training starts from.
    """

    FLOOR = 1e-6

    def __init__(self, dim: int, *, p: float = 3.0) -> None:
        super().__init__(dim)
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        # In float32: a power of a number in half precision soon leaves its range.
        tokens = _real(features.tokens.float(), features.mask).clamp(min=self.FLOOR)
        # Divided by the largest, so that no power overflows.
        largest = tokens.amax(1, keepdim=True)
        mean = _mean((tokens / largest).pow(self.p), features.mask).clamp(min=torch.finfo(torch.float32).tiny)
        return (largest.squeeze(1) * mean.pow(1 / self.p)).to(features.tokens.dtype)


class AttentionPooling(Pooling):
    r"""A weighted mean of the real tokens, the weights softmax over tokens of (token · query) / sqrt(width of a head).

    The query is trained and starts at zero, where every token weighs the same: training starts from the mean. Each head
    weighs its own part of the features. As in hierarchical attention networks (Yang et al. 2016,
    https://aclanthology.org/N16-1174), without the layer before the query.

    Args:
        dim: width of the features.
        heads: into how many parts they are cut.

    Raises:
        OptionError: if the width cannot be cut into so many parts.
    """

    def __init__(self, dim: int, *, heads: int = 1) -> None:
        super().__init__(dim)
        if dim % heads:
            raise OptionError(f"heads is {heads}, which does not divide the width {dim} of the features.")
        self.query = nn.Parameter(torch.zeros(heads, dim // heads))

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        heads, width = self.query.shape
        tokens = _real(features.tokens, features.mask).view(*features.mask.shape, heads, width)
        scores = (tokens * self.query).sum(-1) / width**0.5  # (B, T, heads)
        # Finite, so that a sequence without a real token gives a zero and no NaN.
        hidden = scores.masked_fill(~features.mask.unsqueeze(-1), torch.finfo(scores.dtype).min)
        vectors: Tensor = (tokens * hidden.softmax(1).unsqueeze(-1)).sum(1).flatten(1)
        return vectors


class ClsPooling(Pooling):
    """The first real token, wherever the padding stands."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        first = features.mask.int().argmax(1)
        return features.tokens[_rows(first), first]


class LastPooling(Pooling):
    """The last real token, wherever the padding stands. Of a causal network it alone has seen the whole text."""

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        last = features.mask.shape[1] - 1 - features.mask.flip(1).int().argmax(1)
        return features.tokens[_rows(last), last]


class WeightedMeanPooling(Pooling):
    r"""The mean in which the i-th real token weighs i, so that what has seen more of the text counts for more.

    With h_i the real tokens, sum of i * h_i / sum of i (Muennighoff 2022, https://arxiv.org/abs/2202.08904).
    """

    def forward(self, features: Features) -> Tensor:
        """Vectors (B, D)."""
        # Counted among the real tokens: padding on the left must not make the first of them weigh more.
        position = (features.mask.cumsum(1) * features.mask).unsqueeze(-1)
        weights = position / position.sum(1, keepdim=True).clamp(min=1)
        return (_real(features.tokens, features.mask) * weights).sum(1)


def _rows(columns: Tensor) -> Tensor:
    """The number of each row (B,): as a tensor, which an export follows for batches of any size."""
    return torch.arange(columns.shape[0], device=columns.device)


def _real(tokens: Tensor, mask: Tensor) -> Tensor:
    """The tokens (B, T, D), zero where the mask (B, T) is false. Filled, not multiplied: padding may hold a NaN."""
    return tokens.masked_fill(~mask.unsqueeze(-1), 0)


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, D) of the tokens (B, T, D) where the mask (B, T) is true."""
    return _real(tokens, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


POOLINGS: Mapping[str, Callable[..., Pooling]] = {
    "native": NativePooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "gem": GemPooling,
    "attention": AttentionPooling,
    "cls": ClsPooling,
    "last": LastPooling,
    "weighted_mean": WeightedMeanPooling,
}
