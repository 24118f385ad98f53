"""How the pixels of an image lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def memory_format_of(network: nn.Module) -> torch.memory_format:
    """The order in which convolutions are fastest, on a CPU and on a GPU alike: a pixel's channels side by side.

    Not for networks with convolutions that make several channels of each one (FastViT): there torch 2.15 writes past
    the end of its memory on a CPU, and the process dies.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels != module.out_channels:
            return torch.contiguous_format
    return torch.channels_last
