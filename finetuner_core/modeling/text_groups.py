"""Texts that stand one after the other without padding, in groups of one length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Group(NamedTuple):
    """Texts of the same length that stand one after the other."""

    texts: int
    length: int


def groups_of(lengths: Sequence[int]) -> list[Group]:
    """The groups of texts, in their order."""
    return [Group(len(list(same)), length) for length, same in itertools.groupby(lengths)]


def by_text(tensor: Tensor, group: Group) -> Tensor:
    """The tokens (N, heads, D) of a group as (texts, heads, length, D), without a copy."""
    return tensor.view(group.texts, group.length, *tensor.shape[1:]).transpose(1, 2)


def seen_by(length: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Which tokens of a text each of its tokens attends to.

    Args:
        length: of the text.
        causal: whether a token attends to itself and those before it alone.
        window: how far away a token may be that is attended to: nearer than this; `None` for any distance.
        device: where.

    Returns:
        bool (length, length), or `None` where each attends to all.
    """
    if not causal and (window is None or window >= length):
        return None
    position = torch.arange(length, device=device)
    distance = position.unsqueeze(1) - position
    near = distance.abs() < (length if window is None else window)
    return near & (distance >= 0) if causal else near
