"""Activation checkpointing: a network's stages are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from finetuner_core.interfaces import FeatureExtractor


@contextmanager
def checkpointed(extractor: FeatureExtractor) -> Iterator[None]:
    """Within it, what an extractor's stages compute is not kept for the backward pass, but what goes into each.

    Memory for one stage is then enough, and time for another forward pass is needed (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174). The backward pass has to be within it too. It draws the same random numbers.

    Args:
        extractor: its stages are known.
    """
    modules = {module for stage in extractor.stages() for module in stage.modules}
    forwards: dict[Any, Callable[..., object]] = {module: module.forward for module in modules}
    for module, forward in forwards.items():
        module.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for module in forwards:
            del module.forward
