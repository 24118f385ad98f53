"""The state of the random numbers that a network draws, on the CPU and on the device where it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomState(NamedTuple):
    """Where PyTorch's generators are.

    Args:
        cpu: uint8, the state of that on the CPU.
        device: uint8, the state of that on another device, `None` where there is none.
    """

    cpu: Tensor
    device: Tensor | None


def seed_all(seed: int) -> None:
    """Has all random numbers follow from a seed: PyTorch's, and those that others draw (a miner of a plugin).

    Args:
        seed: from 0 to 2**64 - 1.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed([seed % 2**32, seed // 2**32])


def random_state(device: torch.device) -> RandomState:
    """Where the random numbers are that follow."""
    own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
    return RandomState(torch.get_rng_state(), own)


def restore_random_state(state: RandomState, device: torch.device) -> None:
    """Makes the random numbers that follow those that followed then."""
    torch.set_rng_state(state.cpu)
    if state.device is not None:
        torch.get_device_module(device).set_rng_state(state.device, device)


@contextmanager
def random_numbers_of(state: RandomState, device: torch.device) -> Iterator[None]:
    """Within it, random numbers are drawn as at another time, and after it as if none had been drawn."""
    now = random_state(device)
    restore_random_state(state, device)
    try:
        yield
    finally:
        restore_random_state(now, device)


@contextmanager
def as_if_never(device: torch.device) -> Iterator[None]:
    """What is computed within it leaves no trace in the random numbers that follow."""
    with random_numbers_of(random_state(device), device):
        yield
