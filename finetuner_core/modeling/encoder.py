"""One modality's way from a batch to embeddings."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.interfaces import Batch, FeatureExtractor, Pooling


class Encoder(nn.Module):
    """Extracts features, pools them, projects them where asked to, and scales them to length 1.

    Args:
        extractor: the network without its head.
        pooling: makes a vector of its features.
        projection: a layer from the pooling's width to another, or `None`.
    """

    def __init__(self, *, extractor: FeatureExtractor, pooling: Pooling, projection: nn.Linear | None) -> None:
        super().__init__()
        self.extractor = extractor
        self.pooling = pooling
        self.projection = projection

    @property
    def output_dim(self) -> int:
        """Width of the embeddings."""
        return self.pooling.dim if self.projection is None else self.projection.out_features

    @property
    def padding_free(self) -> bool:
        """Whether padding costs nothing."""
        return self.extractor.padding_free

    def forward(self, batch: Batch) -> Tensor:
        """Embeddings of length 1, float32 (B, output_dim)."""
        vectors: Tensor = self.pooling(self.extractor(batch))
        if self.projection is not None:
            vectors = self.projection(vectors)
        # In float32 also under autocast: a length in bfloat16 is only right to three digits.
        return F.normalize(vectors.float(), dim=-1)


def projection(dim: int, output_dim: int) -> nn.Linear:
    """A new projection (dim -> output_dim), initialised orthogonally.

    Lengths and angles are then kept as far as the width allows (all of them where `output_dim >= dim`), so that what
    the backbone knows about likeness is there from the first step.
    """
    layer = nn.Linear(dim, output_dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
