"""How the pixels of an image lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """The order in which convolutions are fastest, on a CPU and on a GPU alike: a pixel's channels side by side.

    Not for networks that scale each channel by itself with a convolution, or make several of each, as MobileOne and
    FastViT do: with their channels side by side, torch 2.15 spoils its memory on a CPU when it trains them, and the
    process dies.
    """
    return torch.contiguous_format if any(map(_is_channelwise, network.modules())) else torch.channels_last


def _is_channelwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and 1 < module.groups == module.in_channels
        and (module.kernel_size == (1, 1) or module.out_channels != module.in_channels)
    )
