"""The machine's floor: how fast it multiplies matrices, and how much of that a training step has to have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.speed.turns import Turns
from benchmarks.speed.work import Work

ROWS = 2048
"""Tokens in a product of a layer's size; more are no faster."""
SQUARE = 2048
SECONDS = 0.5


@dataclass(frozen=True)
class Transformer:
    """What of a transformer multiplies matrices.

    Args:
        linear: how many weights its linear layers have together, those of all blocks.
        shapes: (in, out) of each different one.
        layers: how many blocks.
        width: of the tokens' features.
    """

    linear: int
    shapes: tuple[tuple[int, int], ...]
    layers: int
    width: int

    def useful_flops(self, lengths: Sequence[int]) -> int:
        """What one step over texts of these lengths cannot do without, forward and backward.

        A weight takes a multiplication and an addition for each token in the forward pass, and twice as many in the
        backward pass, for the gradients of input and weight. Attention takes two products of (length, width) and
        (width, length), again three times over. Nothing else is counted: no padding, norm, activation or optimiser.

        Args:
            lengths: in tokens that are real.
        """
        tokens, squares = sum(lengths), sum(length * length for length in lengths)
        return 3 * (2 * self.linear * tokens + 4 * self.layers * self.width * squares)


def of_model(name: str) -> Transformer:
    """The linear layers of a Hugging Face text model, counted in the network as its own library builds it."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(name)
    with torch.device("meta"):
        network = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    found = [
        module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    ]
    return Transformer(
        sum(module.weight.numel() for module in found),
        tuple(sorted({(module.in_features, module.out_features) for module in found})),
        config.num_hidden_layers,
        config.hidden_size,
    )


def products(turns: Turns, work: Work, *, dtype: str) -> None:
    """A turn multiplies matrices of the layers' sizes, and large square ones, for half a second each.

    It reports `layers` and `square`, in FLOP a second. Each layer's product counts as in a step: forward, and the two
    of the backward pass.
    """
    kind, device = getattr(torch, dtype), work.device
    shapes = of_model(work.model).shapes
    inputs = [
        (torch.randn(ROWS, wide, device=device, dtype=kind), torch.randn(high, wide, device=device, dtype=kind))
        for wide, high in shapes
    ]
    gradients = [torch.randn(ROWS, high, device=device, dtype=kind) for _, high in shapes]
    left, right = (torch.randn(SQUARE, SQUARE, device=device, dtype=kind) for _ in range(2))
    turns.ready()
    while True:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for (batch, weight), gradient in zip(inputs, gradients, strict=True):
                torch.mm(batch, weight.T)
                torch.mm(gradient, weight)
                torch.mm(gradient.T, batch)
                done += 3 * 2 * batch.shape[0] * weight.numel()
            _synchronize(device)
        layers = done / (time.perf_counter() - began)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            torch.mm(left, right)
            done += 2 * SQUARE**3
            _synchronize(device)
        turns.end(items=1, layers=layers, square=done / (time.perf_counter() - began))


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
