"""Poolings against loops over the real tokens, in Python's own arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finetuner_core.errors import OptionError
from finetuner_core.interfaces import Features, Pooling
from finetuner_core.modeling.build import build_model, load
from finetuner_core.modeling.pooling import POOLINGS, AttentionPooling, GemPooling
from tests.conftest import InstallPlugin

# Left padding (the third row), holes, and one real token (the fourth) are among the masks.
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
MAP = torch.ones(2, 6, dtype=torch.bool)  # a feature map has no padding
SEVERAL = [name for name in POOLINGS if name != "native"]
QUERY = [[0.5, -1.0], [2.0, 0.3]]  # of two heads


def make(name: str, dim: int = 4) -> Pooling:
    """A pooling as training may leave it: its parameters are none of those that it starts with."""
    pooling = POOLINGS[name](dim, **({"heads": 2} if name == "attention" else {}))
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.copy_(torch.tensor(2.5 if name == "gem" else QUERY))
    return pooling


def random_features(mask: Tensor, seed: int = 0) -> Features:
    return Features(torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(seed)), mask)


def naive(name: str, tokens: list[list[float]]) -> list[float]:
    columns = list(zip(*tokens, strict=True))
    if name == "attention":
        pooled: list[float] = []
        for head, query in enumerate(QUERY):
            parts = [token[2 * head : 2 * head + 2] for token in tokens]
            scores = [math.exp((a * query[0] + b * query[1]) / math.sqrt(2)) for a, b in parts]
            pooled += [sum(s * part[i] for s, part in zip(scores, parts, strict=True)) / sum(scores) for i in range(2)]
        return pooled
    places = range(1, len(tokens) + 1)
    return {
        "mean": [sum(column) / len(column) for column in columns],
        "max": [max(column) for column in columns],
        "gem": [(sum(max(x, 1e-6) ** 2.5 for x in column) / len(column)) ** (1 / 2.5) for column in columns],
        "cls": [column[0] for column in columns],
        "last": [column[-1] for column in columns],
        "weighted_mean": [sum(i * x for i, x in zip(places, c, strict=True)) / sum(places) for c in columns],
    }[name]


@pytest.mark.parametrize("mask", [MASK, MAP], ids=["tokens", "map"])
@pytest.mark.parametrize("name", SEVERAL)
def test_it_is_what_a_loop_over_the_real_tokens_computes(name: str, mask: Tensor) -> None:
    features = random_features(mask)
    expected = [naive(name, tokens[row].tolist()) for tokens, row in zip(features.tokens, mask, strict=True)]
    torch.testing.assert_close(make(name)(features), torch.tensor(expected))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("padding", [0.0, 1e30, float("inf"), float("nan")])
def test_what_stands_in_the_padding_never_matters(name: str, padding: float) -> None:
    features, pooling = random_features(MASK), make(name)
    filled = features.tokens.masked_fill(~MASK.unsqueeze(-1), padding).requires_grad_()
    pooled = pooling(Features(filled, MASK))
    assert torch.equal(pooled, pooling(features))
    pooled.sum().backward()
    assert filled.grad is not None
    assert not filled.grad[~MASK].any()


@pytest.mark.parametrize("name", SEVERAL)
def test_more_padding_on_either_side_never_matters(name: str) -> None:
    features, pooling = random_features(MASK), make(name)
    tokens, mask = nn.functional.pad(features.tokens, (0, 0, 3, 2), value=7), nn.functional.pad(MASK, (3, 2))
    torch.testing.assert_close(pooling(Features(tokens, mask)), pooling(features))


@pytest.mark.parametrize("name", ["native", *SEVERAL])
def test_of_one_token_it_is_that_token(name: str) -> None:
    # GeM takes what a CNN's activations are, which are not negative.
    vectors = torch.randn(4, 4).abs() + 0.01 if name == "gem" else torch.randn(4, 4)
    pooling = POOLINGS["native"](4) if name == "native" else make(name)
    assert pooling.dim == 4
    torch.testing.assert_close(pooling(Features.of_vectors(vectors)), vectors, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SEVERAL)
def test_every_parameter_and_every_token_that_counts_gets_a_gradient(name: str) -> None:
    features, pooling = random_features(MAP), make(name)
    tokens = features.tokens.abs().requires_grad_()
    (pooling(Features(tokens, MAP)) * torch.randn(2, 4)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in pooling.parameters())
    assert tokens.grad is not None
    counting = {"cls": [0], "last": [5]}.get(name, range(6))
    if name != "max":
        assert tokens.grad.any(-1).any(0).nonzero().flatten().tolist() == list(counting)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_finite(name: str, dtype: torch.dtype) -> None:
    features = random_features(torch.ones(2, 300, dtype=torch.bool))
    pooled = make(name)(Features((features.tokens * 50).to(dtype), features.mask))
    assert pooled.isfinite().all()
    exact = make(name)(Features(features.tokens * 50, features.mask))
    torch.testing.assert_close(pooled.float(), exact, rtol=0.03, atol=0.3)


def test_gem_is_the_mean_at_1_and_nears_the_maximum() -> None:
    features = Features(random_features(MASK).tokens.abs() + 0.1, MASK)
    torch.testing.assert_close(GemPooling(4, p=1)(features), POOLINGS["mean"](4)(features))
    torch.testing.assert_close(GemPooling(4, p=300)(features), POOLINGS["max"](4)(features), rtol=0.01, atol=0)


def test_attention_starts_as_the_mean() -> None:
    features = random_features(MASK)
    torch.testing.assert_close(AttentionPooling(4, heads=2)(features), POOLINGS["mean"](4)(features))


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(OptionError, match="heads is 3, which does not divide the width 4 of the features"):
        AttentionPooling(4, heads=3)


@pytest.mark.parametrize("name", ["mean", "weighted_mean", "attention"])
def test_the_mean_of_no_tokens_is_zero(name: str) -> None:
    features = Features(torch.ones(2, 3, 4), torch.tensor([[False] * 3, [True] * 3]))
    assert make(name)(features).tolist() == [[0] * 4, [1] * 4]


def test_native_expects_that_the_backbone_pooled() -> None:
    with pytest.raises(ValueError, match="gave 4"):
        POOLINGS["native"](4)(random_features(MASK))


ADDED = """
from finetuner_core.plugin import Option, PoolingInfo, hookimpl

@hookimpl
def list_poolings():
    return [PoolingInfo("second", "", (Option("scale", "float", 2.0),))]

@hookimpl
def build_pooling(info, dim, options):
    from finetuner_core.interfaces import Pooling
    class Second(Pooling):
        def forward(self, features):
            return options["scale"] * features.tokens[:, 1]
    return Second(dim)
"""


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("name", ["second", "more/second"])
def test_a_pooling_that_another_plugin_adds(name: str, install_plugin: InstallPlugin) -> None:
    install_plugin("more", ADDED)
    model = build_model("letters", pooling=name, pooling_options={"scale": "-3"})
    features = model.encoder("text").extractor(model.preprocess("text").collate([[5, 6, 7]]))
    vector = model("text", [[5, 6, 7]])
    torch.testing.assert_close(vector, -nn.functional.normalize(features.tokens[:, 1], dim=-1))
    with pytest.raises(OptionError, match=r'both does not support the pooling ".*second"'):
        build_model("both", pooling=name)


@pytest.mark.usefixtures("acme")
def test_options_of_a_pooling_are_set_and_saved(tmp_path: Path) -> None:
    model = build_model("letters", pooling="attention", pooling_options={"heads": 4})
    assert model.encoder("text").get_parameter("pooling.query").shape == (4, 4)
    loaded = load(model.save(tmp_path / "model"))
    assert loaded.tower("text").pooling_options == {"heads": 4}
    with pytest.raises(OptionError, match=r'pooling mean has no option "heads"'):
        build_model("letters", pooling="mean", pooling_options={"heads": 4})
