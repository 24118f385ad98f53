"""What the network computes, against numpy; what it is fed; and its stages."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import finetuner
from finetuner_core.errors import DataError

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def by_hand(model: finetuner.EmbeddingModel, vectors: np.ndarray, activation: str) -> np.ndarray:
    hidden = vectors.astype(np.float64)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for number, layer in enumerate(layers):
        hidden = hidden @ layer.weight.detach().double().numpy().T
        if layer.bias is not None:
            hidden = hidden + layer.bias.detach().double().numpy()
        if number < len(layers) - 1:
            hidden = ACTIVATIONS[activation](hidden)
    unit: np.ndarray = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_embeddings_are_those_of_a_naive_computation(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    model = finetuner.build_model("mlp", input_size=7, hidden_sizes=(11, 9, 5), activation=activation, bias=bias)
    vectors = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32) * 3
    assert np.abs(model.encode(vectors) - by_hand(model, vectors, activation)).max() < 1e-6


def test_dropout_is_off_when_encoding_and_on_in_training() -> None:
    model = finetuner.build_model("mlp", input_size=4, hidden_sizes=(64, 8), dropout=0.5)
    vectors = np.ones((1, 4), dtype=np.float32)
    assert np.array_equal(model.encode(vectors), model.encode(vectors))
    model.train()
    prepared = model.preprocess("vector").prepare(vectors)  # type: ignore[arg-type]
    assert not torch.equal(model("vector", prepared), model("vector", prepared))


@pytest.mark.parametrize(
    "items",
    [
        [[1, 2, 3]],
        [(1.0, 2.0, 3.0)],
        [np.array([1, 2, 3], dtype=np.float64)],
        np.array([[1, 2, 3]]),
        [torch.arange(1, 4)],
    ],
)
def test_vectors_come_in_any_form_of_numbers(items: object) -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(2,))
    expected = model.encode(np.array([[1, 2, 3]], dtype=np.float32))
    assert np.array_equal(model.encode(items), expected)  # type: ignore[arg-type]


def test_a_vector_of_another_width_is_refused_with_both_widths() -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(2,))
    with pytest.raises(DataError, match=r"takes vectors of width 3, and these have the shape \(5,\)"):
        model.encode(np.zeros((2, 5), dtype=np.float32))


@pytest.mark.parametrize("items", [[[1, 2, 3], [1, 2]], ["abc"], [None]])
def test_what_is_no_vector_is_refused(items: list[object]) -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(2,))
    with pytest.raises(DataError, match=r"Vectors must be numbers, all of one width|shape"):
        model.encode(items)


def test_stages_hold_every_parameter_and_every_dropout_once() -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(4, 5, 6), dropout=0.5)
    extractor = model.encoder("vector").extractor
    stages = extractor.stages()
    assert [stage.name for stage in stages] == ["layer 1", "layer 2", "layer 3"]
    held = [id(parameter) for stage in stages for module in stage.modules for parameter in module.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in extractor.parameters())
    assert [type(module) for module in stages[0].modules] == [nn.Linear, nn.GELU, nn.Dropout]
    assert [type(module) for module in stages[2].modules] == [nn.Linear]


def test_every_parameter_takes_part_in_the_embedding() -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(4, 5))
    prepared = model.preprocess("vector").prepare([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    model("vector", prepared)[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
