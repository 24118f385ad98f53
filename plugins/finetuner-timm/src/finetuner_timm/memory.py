"""How the pixels of an image lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """The order in which convolutions are fastest, on a CPU and on a GPU alike: a pixel's channels side by side.

    Not for networks in which torch 2.15 then writes past the end of its memory on a CPU, and the process dies.
    """
    if any(isinstance(module, nn.Conv2d) and _is_deadly(module) for module in network.modules()):
        return torch.contiguous_format
    return torch.channels_last


def _is_deadly(convolution: nn.Conv2d) -> bool:
    """Whether it makes several channels of each one (FastViT), or leaps over the pixels themselves (RepVGG)."""
    multiplies = 1 < convolution.groups == convolution.in_channels != convolution.out_channels
    leaps = convolution.kernel_size == (1, 1) and convolution.stride != (1, 1) and convolution.in_channels < 16
    return multiplies or leaps
