"""Attention among the tokens of each text, where the texts of a batch stand one after the other without padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from finetuner_core.modeling.dropout import draw, keep


class Group(NamedTuple):
    """Texts of the same length that stand one after the other."""

    texts: int
    length: int


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention of each token to those of its own text.

    Texts of one length that stand side by side are computed at once; sort texts by length, and there is no padding and
    no mask anywhere.

    Args:
        query: float (N, H, D), N the tokens of all texts.
        key: float (N, K, D), where K divides H: each of its heads serves H / K heads of the query.
        value: float (N, K, D).
        lengths: how many tokens each text has; N in all.
        scale: of the products, else 1 / sqrt(D).
        causal: whether a token attends to itself and those before it alone.
        window: how far away a token may be that is attended to: nearer than this before it, and behind it as well
            where not causal; `None` for any distance.
        dropout: the share of attention weights that are dropped.

    Returns:
        float (N, H, D).
    """
    groups = [Group(len(list(same)), length) for length, same in itertools.groupby(lengths)]
    if query.device.type == "cpu" and query.dtype is not torch.float32:
        # In bfloat16 attention is slower on a CPU than in float32, measured where products in it are twice as fast.
        packed = packed_attention(
            query.float(), key.float(), value.float(), lengths, scale=scale, causal=causal, window=window,
            dropout=dropout,
        )  # fmt: skip
        return packed.to(query.dtype)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if dropout and query.device.type == "cpu":
        if query.shape[1] != key.shape[1]:
            key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
        dropped: Tensor = _Attention.apply(query, key, value, groups, scale, causal, window, dropout)
        return dropped
    sizes = [texts * length for texts, length in groups]
    parts = zip(groups, *(torch.split(tensor, sizes) for tensor in (query, key, value)), strict=True)
    return torch.cat(
        [
            F.scaled_dot_product_attention(
                _by_text(q, group),
                _by_text(k, group),
                _by_text(v, group),
                attn_mask=_window(group.length, window, causal, q.device),
                is_causal=causal and not _is_windowed(group.length, window),
                dropout_p=dropout,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )
            .transpose(1, 2)
            .reshape(q.shape)
            for group, q, k, v in parts
        ]
    )


def _by_text(tensor: Tensor, group: Group) -> Tensor:
    """(texts, heads, length, D), without a copy."""
    return tensor.view(group.texts, group.length, *tensor.shape[1:]).transpose(1, 2)


def _is_windowed(length: int, window: int | None) -> bool:
    return window is not None and window < length


def _window(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    """Which tokens attend to which, bool (length, length); `None` where the window leaves nothing out."""
    if window is None or not _is_windowed(length, window):
        return None
    position = torch.arange(length, device=device)
    distance = position.unsqueeze(1) - position
    return (distance < window) & (distance >= 0) if causal else distance.abs() < window


class _Attention(torch.autograd.Function):
    """Attention with dropout on a CPU, where PyTorch has it on its slowest path alone.

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
            q, k, v = (_by_text(tensor[rows], group) for tensor in (query, key, value))
            weights = torch.matmul(q, k.transpose(2, 3)).mul_(scale)
            hidden = _window(group.length, window, causal, q.device)
            if hidden is not None or causal:
                seen = hidden if hidden is not None else torch.ones(group.length, group.length, dtype=torch.bool).tril()
                weights.masked_fill_(~seen, float("-inf"))
            weights = torch.softmax(weights, -1)
            lanes = draw(weights.numel()).view(weights.shape)
            saved += (weights, lanes)
            torch_out = torch.matmul(keep(lanes, p, weights.dtype).mul_(weights), v)
            _by_text(out[rows], group).copy_(torch_out)
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
            q, k, v, g = (_by_text(tensor[rows], group) for tensor in (query, key, value, gradient))
            factors = keep(lanes, ctx.p, weights.dtype)
            of_weights = torch.matmul(g, v.transpose(2, 3)).mul_(factors)
            of_values = torch.matmul(factors.mul_(weights).transpose(2, 3), g)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_scores.mul_(ctx.scale)
            own = (torch.matmul(of_scores, k), torch.matmul(of_scores.transpose(2, 3), q), of_values)
            for whole, part in zip(gradients, own, strict=True):
                _by_text(whole[rows], group).copy_(part)
        return (*gradients, None, None, None, None, None)
