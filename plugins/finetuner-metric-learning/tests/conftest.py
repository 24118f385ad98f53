"""Losses as the core builds them, and small batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import torch
from pytorch_metric_learning import losses
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.losses.build import build_loss, loss_options

DIM, CLASSES = 6, 3
REQUIRED = {"num_classes": CLASSES, "margin": 0.4, "Tn": 2.0}
_PROXIES = ("num_classes", "embedding_size")
REQUIRES = {
    "ArcFaceLoss": _PROXIES,
    "CosFaceLoss": _PROXIES,
    "LargeMarginSoftmaxLoss": _PROXIES,
    "NormalizedSoftmaxLoss": _PROXIES,
    "P2SGradLoss": ("num_classes", "descriptors_dim"),
    "ProxyAnchorLoss": _PROXIES,
    "ProxyNCALoss": _PROXIES,
    "RankedListLoss": ("margin", "Tn"),
    "SoftTripleLoss": _PROXIES,
    "SphereFaceLoss": _PROXIES,
    "SubCenterArcFaceLoss": _PROXIES,
}
"""What losses of the library need to be given."""


class Build(Protocol):
    """`build(name, option=...)`: the loss for embeddings (B, 6), what it requires given for three classes."""

    def __call__(self, name: str, **options: object) -> nn.Module: ...


class Library(Protocol):
    """`library(name, argument=...)`: the library's own loss, called directly, with what it requires."""

    def __call__(self, name: str, **arguments: Any) -> Any: ...


class Vectors(Protocol):
    """`vectors(seed, items)`: embeddings (items, 6) of length 1 that want a gradient."""

    def __call__(self, seed: int, items: int = 9) -> Tensor: ...


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors as small as these lose more by waiting for each other's threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def build() -> Build:
    def made(name: str, **options: object) -> nn.Module:
        declared = catalogue().find_loss(name)[1].options
        required = {option.name: REQUIRED[option.name] for option in declared if option.required}
        torch.manual_seed(0)
        return build_loss(name, DIM, loss_options(name, {**required, **options}))

    return made


@pytest.fixture
def library() -> Library:
    def made(name: str, **arguments: Any) -> Any:
        kind = getattr(losses, name)
        known = {"embedding_size": DIM, "descriptors_dim": DIM, **REQUIRED}
        required = {key: known[key] for key in REQUIRES.get(name, ())}
        torch.manual_seed(0)
        return kind(**{**required, **arguments})

    return made


@pytest.fixture
def vectors() -> Vectors:
    def made(seed: int, items: int = 9) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(items, DIM, generator=generator), dim=1).requires_grad_()

    return made


@pytest.fixture
def labels() -> Tensor:
    """Three classes of three items."""
    return torch.arange(CLASSES).repeat_interleave(3)
