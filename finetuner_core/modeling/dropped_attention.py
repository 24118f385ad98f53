"""Attention with dropout on a CPU, which PyTorch has on its slowest path alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from finetuner_core.modeling.dropout import draw, keep
from finetuner_core.modeling.text_groups import Group, by_text, seen_by


class DroppedAttention(torch.autograd.Function):
    """Attention whose weights are dropped, for texts in groups of one length.

    With P = softmax(scale * Q K^T) and M the factors of dropout, O = (P * M) V. Backwards, with dO given,
    d(P * M) = dO V^T, dS = P * (dP - sum over keys of dP * P), where dP = d(P * M) * M; dQ = scale * dS K,
    dK = scale * dS^T Q, dV = (P * M)^T dO. M is kept as its random bits, and made again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        groups: Sequence[Group],
        scale: float,
        causal: bool,
        window: int | None,
        p: float,
    ) -> Tensor:
        out = query.new_empty(query.shape)
        saved: list[Tensor] = []
        at = 0
        for group in groups:
            rows = slice(at, at + group.texts * group.length)
            at = rows.stop
            q, k, v = (by_text(tensor[rows], group) for tensor in (query, key, value))
            weights = torch.matmul(q, k.transpose(2, 3)).mul_(scale)
            seen = seen_by(group.length, causal, window, q.device)
            if seen is not None:
                weights.masked_fill_(~seen, float("-inf"))
            weights = torch.softmax(weights, -1)
            lanes = draw(weights.numel()).view(weights.shape)
            saved += (weights, lanes)
            by_text(out[rows], group).copy_(torch.matmul(keep(lanes, p, weights.dtype).mul_(weights), v))
        ctx.save_for_backward(query, key, value, *saved)
        ctx.groups, ctx.scale, ctx.p = groups, scale, p
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
        at = 0
        for number, group in enumerate(ctx.groups):
            rows = slice(at, at + group.texts * group.length)
            at = rows.stop
            weights, lanes = saved[2 * number : 2 * number + 2]
            q, k, v, g = (by_text(tensor[rows], group) for tensor in (query, key, value, gradient))
            factors = keep(lanes, ctx.p, weights.dtype)
            of_weights = torch.matmul(g, v.transpose(2, 3)).mul_(factors)
            of_values = torch.matmul(factors.mul_(weights).transpose(2, 3), g)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_scores.mul_(ctx.scale)
            own = (torch.matmul(of_scores, k), torch.matmul(of_scores.transpose(2, 3), q), of_values)
            for whole, part in zip(gradients, own, strict=True):
                by_text(whole[rows], group).copy_(part)
        return (*gradients, None, None, None, None, None)
