"""Attention with dropout on a CPU, which PyTorch has on its slowest path alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from finetuner_core.modeling.dropout import draw, mask, scale_of
from finetuner_core.modeling.text_groups import Group, by_text, seen_by


class DroppedAttention(torch.autograd.Function):
    """Attention whose weights are dropped, for texts in groups of one length.

    With P = softmax(scale * Q K^T), M the mask of dropout and c = 1 / (1 - p) what is kept is scaled by, the output is
    O = c (P * M) V. Backwards, with dO given, dV = c (P * M)^T dO, and of the scores dS = (P * M) * (c dO V^T) - P * d,
    where d = sum over features of dO * O, as in FlashAttention (Dao et al. 2022, https://arxiv.org/abs/2205.14135);
    dQ = scale * dS K, dK = scale * dS^T Q. What is as large as P is gone through as seldom as possible: factors go into
    what is smaller.
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
        scaled = query * scale
        out = torch.empty_like(query)
        saved: list[Tensor] = []
        for rows, group in _slices(groups):
            q, k, v = (by_text(tensor[rows], group) for tensor in (scaled, key, value))
            scores = torch.matmul(q, k.transpose(2, 3))
            seen = seen_by(group.length, causal, window, q.device)
            if seen is not None:
                scores.masked_fill_(~seen, float("-inf"))
            weights = torch.softmax(scores, -1)
            kept = mask(draw(weights.numel()), p, scores.view(-1)).view(weights.shape).mul_(weights)
            saved += (weights, kept)
            by_text(out[rows], group).copy_(torch.matmul(kept, v))
        out.mul_(scale_of(p))
        ctx.save_for_backward(query, key, value, out, *saved)
        ctx.groups, ctx.scale, ctx.p = groups, scale, p
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *saved = ctx.saved_tensors
        of_rows = (gradient * out).sum(-1, keepdim=True).neg_()  # (N, H, 1)
        scaled = gradient * scale_of(ctx.p)
        of_query, of_key, of_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for number, (rows, group) in enumerate(_slices(ctx.groups)):
            weights, kept = saved[2 * number : 2 * number + 2]
            q, k, v, g, d = (by_text(tensor[rows], group) for tensor in (query, key, value, scaled, of_rows))
            of_scores = torch.matmul(g, v.transpose(2, 3)).mul_(kept).addcmul_(weights, d)
            by_text(of_value[rows], group).copy_(torch.matmul(kept.transpose(2, 3), g))
            by_text(of_query[rows], group).copy_(torch.matmul(of_scores, k))
            by_text(of_key[rows], group).copy_(torch.matmul(of_scores.transpose(2, 3), q))
        return of_query.mul_(ctx.scale), of_key.mul_(ctx.scale), of_value, None, None, None, None, None


def _slices(groups: Sequence[Group]) -> Iterator[tuple[slice, Group]]:
    """Where the tokens of each group stand."""
    at = 0
    for group in groups:
        yield slice(at, at + group.texts * group.length), group
        at += group.texts * group.length
