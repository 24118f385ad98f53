"""The way from a batch to vectors of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_core.modeling.encoder import Encoder, projection
from finetuner_core.modeling.pooling import NativePooling


class Linear(FeatureExtractor):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(dim, dim)

    def forward(self, batch: Batch) -> Features:
        return Features.of_vectors(self.layer(batch["vectors"]))

    def stages(self) -> Sequence[Stage]:
        return [Stage("layer", (self.layer,))]


def make(dim: int, output_dim: int | None) -> Encoder:
    layer = None if output_dim is None else projection(dim, output_dim)
    return Encoder(extractor=Linear(dim), pooling=NativePooling(dim), projection=layer)


@pytest.mark.parametrize("output_dim", [6, 9])
def test_a_new_projection_keeps_lengths_and_angles(output_dim: int) -> None:
    vectors = torch.randn(20, 6)
    projected = projection(6, output_dim)(vectors)
    # All dot products, the lengths among them.
    torch.testing.assert_close(projected @ projected.T, vectors @ vectors.T, rtol=1e-4, atol=1e-4)


def test_a_narrower_projection_has_orthogonal_directions() -> None:
    weight = projection(6, 4).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4))


@pytest.mark.parametrize(("output_dim", "width"), [(None, 6), (4, 4), (9, 9)])
def test_embeddings_have_length_1(output_dim: int | None, width: int) -> None:
    encoder = make(6, output_dim)
    vectors = encoder({"vectors": 100 * torch.randn(5, 6)})
    assert vectors.shape == (5, encoder.output_dim) == (5, width)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


def test_without_a_projection_it_only_scales() -> None:
    encoder = make(6, None)
    batch = torch.randn(5, 6)
    raw = encoder.extractor({"vectors": batch}).tokens[:, 0]
    torch.testing.assert_close(encoder({"vectors": batch}), raw / raw.square().sum(1, keepdim=True).sqrt())


@pytest.mark.parametrize("output_dim", [None, 4])
def test_under_bfloat16_embeddings_are_float32_of_length_1(output_dim: int | None) -> None:
    encoder, batch = make(6, output_dim), {"vectors": torch.randn(50, 6)}
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder.extractor(batch).tokens.dtype is torch.bfloat16
        vectors = encoder(batch)
    assert vectors.dtype is torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(50))
