"""Attention among the tokens of each text, where the texts of a batch stand one after the other without padding."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.modeling.dropped_attention import DroppedAttention
from finetuner_core.modeling.text_groups import by_text, groups_of, seen_by


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

    On a CPU, texts of one length that stand side by side are computed at once; sort texts by length, and there is no
    padding anywhere. On a GPU all texts are computed at once: by a kernel that knows where each of them ends, or padded
    for this alone.

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
    how = How(query.shape[-1] ** -0.5 if scale is None else scale, causal, window, dropout)
    if query.device.type == "cpu":
        # In bfloat16 attention is slower on a CPU than in float32, also where other products are twice as fast in it.
        compute = _dropped if dropout else _grouped
        return compute(query.float(), key.float(), value.float(), lengths, how).to(query.dtype)
    if _has_kernel(query, how):
        return _by_kernel(query, key, value, lengths, how)
    return _padded(query, key, value, lengths, how)


class How(NamedTuple):
    """How tokens attend; see `packed_attention`."""

    scale: float
    causal: bool
    window: int | None
    dropout: float


def _grouped(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], how: How) -> Tensor:
    groups = groups_of(lengths)
    sizes = [group.texts * group.length for group in groups]
    made = []
    for group, q, k, v in zip(groups, *(torch.split(each, sizes) for each in (query, key, value)), strict=True):
        plain = how.causal and (how.window is None or how.window >= group.length)  # which has a faster kernel
        attended = F.scaled_dot_product_attention(
            by_text(q, group),
            by_text(k, group),
            by_text(v, group),
            attn_mask=None if plain else seen_by(group.length, how.causal, how.window, q.device),
            is_causal=plain,
            scale=how.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        made.append(attended.transpose(1, 2).reshape(q.shape))
    return torch.cat(made)


def _dropped(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], how: How) -> Tensor:
    if (shared := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    made: Tensor = DroppedAttention.apply(query, key, value, groups_of(lengths), *how)
    return made


def _padded(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], how: How) -> Tensor:
    """Each text in a row of its own, for attention alone: linear layers still see no padding."""
    longest, device = max(lengths), query.device
    real = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    at = real.flatten().nonzero().squeeze(1).to(device)  # of each token, its place in (texts, longest)

    def in_rows(each: Tensor) -> Tensor:
        """(texts, heads, longest, D)."""
        padded = each.new_zeros(real.numel(), *each.shape[1:]).index_copy(0, at, each)
        return padded.view(*real.shape, *each.shape[1:]).transpose(1, 2)

    seen = real[:, None, None].to(device)
    if (near := seen_by(longest, how.causal, how.window, device)) is not None:
        seen = seen & near
    # Padding attends to itself: a row without anything to attend to would be no number.
    seen = seen | torch.eye(longest, dtype=torch.bool, device=device)
    attended = F.scaled_dot_product_attention(
        in_rows(query),
        in_rows(key),
        in_rows(value),
        attn_mask=seen,
        dropout_p=how.dropout,
        scale=how.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.transpose(1, 2).flatten(0, 1)[at]


def _has_kernel(query: Tensor, how: How) -> bool:
    """Whether PyTorch has a kernel for texts of any length that computes this."""
    return (
        not how.dropout
        and query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and kernel() is not None
    )


@cache
def kernel() -> Callable[..., object] | None:
    """PyTorch's attention for texts of any length, where it is new enough to take all that is needed here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= set(takes) else None


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], how: How) -> Tensor:
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=query.device)
    far = -1 if how.window is None else how.window - 1
    varlen_attn = kernel()
    assert varlen_attn is not None
    made = varlen_attn(
        query,
        key,
        value,
        ends,
        ends,
        max(lengths),
        max(lengths),
        scale=how.scale,
        window_size=(far, 0 if how.causal else far),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(made, Tensor)
    return made
