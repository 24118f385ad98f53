"""Dropout whose masks are drawn fast on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LANES = 2**16


def use_fast_dropout(model: nn.Module) -> None:
    """Makes every `nn.Dropout` of a model a `FastDropout`. It stays the same object: others may hold it."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = FastDropout


class FastDropout(nn.Dropout):
    """`nn.Dropout`, with masks of `draw` on a CPU.

    PyTorch draws a Bernoulli number for each element there, one after the other, which takes longer than the layers
    around it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input with each element zero with probability p, and the others scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or _dropped(self.p) == _LANES:
            return F.dropout(input, self.p, training=True)
        dropped: Tensor = _Dropout.apply(input, self.p)
        return dropped


def draw(count: int) -> Tensor:
    """Independent lanes of random bits, int16 (count,), every value equally likely.

    Four of them are cut from each number of SFC64 (Doty-Humphrey 2010, as numpy has it), which is drawn from a seed of
    PyTorch's own generator: `torch.manual_seed` and a restored state of it give the same again.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    numbers = np.random.Generator(np.random.SFC64(seed)).integers(2**64, size=-(-count // 4), dtype=np.uint64)
    return torch.from_numpy(numbers.view(np.int16))[:count]


def mask(lanes: Tensor, p: float, out: Tensor) -> Tensor:
    """What is kept: 0 where an element's lane says that it is dropped, else 1.

    p is rounded to a multiple of 1/65,536, here and in `scale_of`, so that the expected value stays what it was.

    Args:
        lanes: what `draw` gave.
        p: the share that is dropped.
        out: float, of the same shape, for the result; it is faster than one of truth values.
    """
    return torch.ge(lanes, _dropped(p) - _LANES // 2, out=out)


def scale_of(p: float) -> float:
    """What the kept elements are multiplied by: 1 / (1 - p)."""
    return _LANES / (_LANES - _dropped(p))


def _dropped(p: float) -> int:
    """How many of the 65,536 values of a lane mean that its element is dropped."""
    return round(p * _LANES)


def _factors(lanes: Tensor, p: float, like: Tensor) -> Tensor:
    return mask(lanes, p, torch.empty(like.shape, dtype=like.dtype)).mul_(scale_of(p))


class _Dropout(torch.autograd.Function):
    """Keeps the lanes, two bytes an element, and makes the factors again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, p: float) -> Tensor:
        lanes = draw(input.numel()).view(input.shape)
        ctx.save_for_backward(lanes)
        ctx.p = p
        return _factors(lanes, p, input).mul_(input)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (lanes,) = ctx.saved_tensors
        return _factors(lanes, ctx.p, gradient).mul_(gradient), None
