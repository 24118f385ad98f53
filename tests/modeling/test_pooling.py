"""Poolings against loops over the real tokens."""

from __future__ import annotations

import pytest
import torch

from finetuner_core.interfaces import Features
from finetuner_core.modeling.pooling import POOLINGS

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
SEVERAL = ["mean", "cls", "max"]


def random_features(seed: int = 0) -> Features:
    return Features(torch.randn(*MASK.shape, 3, generator=torch.Generator().manual_seed(seed)), MASK)


def naive(name: str, tokens: list[list[float]]) -> list[float]:
    columns = list(zip(*tokens, strict=True))
    return {
        "mean": [sum(column) / len(column) for column in columns],
        "cls": [column[0] for column in columns],
        "max": [max(column) for column in columns],
    }[name]


@pytest.mark.parametrize("name", SEVERAL)
def test_it_is_what_a_loop_over_the_real_tokens_computes(name: str) -> None:
    features = random_features()
    # Left padding (the third row) and holes are among the masks.
    expected = [naive(name, tokens[mask].tolist()) for tokens, mask in zip(features.tokens, MASK, strict=True)]
    torch.testing.assert_close(POOLINGS[name](3)(features), torch.tensor(expected))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("padding", [0.0, 1e30, float("inf"), float("nan")])
def test_what_stands_in_the_padding_never_matters(name: str, padding: float) -> None:
    features = random_features()
    filled = features.tokens.masked_fill(~MASK.unsqueeze(-1), padding).requires_grad_()
    pooled = POOLINGS[name](3)(Features(filled, MASK))
    assert torch.equal(pooled, POOLINGS[name](3)(features))
    pooled.sum().backward()
    assert filled.grad is not None
    assert not filled.grad[~MASK].any()


@pytest.mark.parametrize("name", ["native", *SEVERAL])
def test_of_one_token_it_is_that_token(name: str) -> None:
    vectors = torch.randn(4, 3)
    pooling = POOLINGS[name](3)
    assert pooling.dim == 3
    assert torch.equal(pooling(Features.of_vectors(vectors)), vectors)


def test_the_mean_of_no_tokens_is_zero() -> None:
    features = Features(torch.ones(2, 3, 4), torch.tensor([[False] * 3, [True] * 3]))
    assert POOLINGS["mean"](4)(features).tolist() == [[0] * 4, [1] * 4]


def test_native_expects_that_the_backbone_pooled() -> None:
    with pytest.raises(ValueError, match="gave 4"):
        POOLINGS["native"](3)(random_features())
