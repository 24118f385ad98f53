"""How the pixels of an image lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """The order in which convolutions are fastest, on a CPU and on a GPU alike: a pixel's channels side by side.

    Not for networks with convolutions in three dimensions (LambdaNetworks), which know no such order; and not for those
    in which torch 2.15 then spoils its memory on a CPU when it trains them, and the process dies.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) or (isinstance(module, nn.Conv2d) and _is_deadly(module)):
            return torch.contiguous_format
    return torch.channels_last


def _is_deadly(convolution: nn.Conv2d) -> bool:
    """Whether it is one of those that were seen to kill the process.

    Each channel by itself, scaled (MobileOne) or made into several (FastViT); or a leap over pixels of few channels, as
    over those of the image (RepVGG).
    """
    point, by_itself = convolution.kernel_size == (1, 1), 1 < convolution.groups == convolution.in_channels
    if by_itself and (point or convolution.out_channels != convolution.in_channels):
        return True
    return point and convolution.stride != (1, 1) and convolution.in_channels < 16
