"""A backbone that is checked: how it is built, and what it makes of items."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finetuner_core.catalogue.names import resolve
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.interfaces import FeatureExtractor, Features
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embed import embed_chunk
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.testing.check import Subject, fail
from finetuner_core.testing.samples import items_of
from finetuner_core.values import SIDES, BackboneInfo, Modality, Side

TOLERANCE = 1e-4
"""How far apart numbers of vectors of length 1 may be that ought to be equal: kernels differ with a batch's size."""


@functools.lru_cache(maxsize=1)
def row_of(subject: Subject) -> BackboneInfo:
    """The row that the backbone's full name means."""
    return resolve(catalogue(), subject.full_name)


def build(
    subject: Subject, pooling: str | None = None, *, seed: int = 0, options: Mapping[str, object] | None = None
) -> EmbeddingModel:
    """A new model with random weights, the same for the same seed."""
    given: dict[str, Any] = {**subject.options, **(options or {})}
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        return build_model(subject.full_name, pretrained=False, pooling=pooling, **given)
    finally:
        torch.random.set_rng_state(state)


def model_of(subject: Subject) -> EmbeddingModel:
    """The backbone's stirred model with its default pooling, shared by checks that do not change it."""
    return _shared_model(subject, row_of(subject).poolings[0])


def models_of(subject: Subject) -> Iterator[EmbeddingModel]:
    """A stirred model for each way to strip the head: the backbone's own vector, class token first, other tokens."""
    poolings = row_of(subject).poolings
    # The last one that is put in under a key stands: the first of the row.
    ways = {pooling if pooling in ("native", "cls") else "tokens": pooling for pooling in reversed(poolings)}
    return (_shared_model(subject, pooling) for pooling in poolings if pooling in ways.values())


@functools.lru_cache(maxsize=3)
def _shared_model(subject: Subject, pooling: str) -> EmbeddingModel:
    """The last three are kept, which are those of one backbone: checking many needs no more memory than that."""
    return stir(build(subject, pooling))


def stir(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """Adds noise to what is the same in every entry, as training would: gates, biases and scales, and batch statistics.

    A network whose gates are still zero hides what stands behind them, and a bias of zero is saved by forgetting it.
    """
    noise = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=noise).to(tensor) - 0.5

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(random_like(parameter) * 0.2)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.add_(random_like(module.running_mean) * 0.2)
                module.running_var.add_(random_like(module.running_var) * 0.2)
    return model


def items(subject: Subject, modality: Modality) -> Sequence[object]:
    """A few different items that the backbone takes."""
    return items_of(modality, vector_width(subject, modality))


def vector_width(subject: Subject, modality: Modality) -> int:
    """The width of vectors that the backbone takes: what its option `input_size` says. 0 for other modalities."""
    if modality != "vector":
        return 0
    declared = {option.name: option.default for option in row_of(subject).options}
    width = subject.options.get("input_size", declared.get("input_size"))
    if not isinstance(width, int):
        fail(
            f"{subject.full_name} takes vectors, and it is not known how wide.",
            f'A network over vectors has an option input_size: backbones={{"{subject.name}": {{"input_size": 8}}}}.',
        )
    return width


def features(model: EmbeddingModel, modality: Modality, some: Sequence[object]) -> Features:
    """What the extractor makes of items."""
    extractor = model.encoder(modality).extractor
    assert isinstance(extractor, FeatureExtractor)
    preprocess = model.preprocess(modality)
    given: Features = extractor(preprocess.collate(preprocess.prepare(some)))
    return given


def embed(model: EmbeddingModel, modality: Modality, some: Sequence[object], side: Side | None = None) -> Tensor:
    """The vectors of items, all in one batch, and in this order: a model would sort them, and compute some apart."""
    preprocess = model.preprocess(modality, side)
    with torch.inference_mode():
        return embed_chunk(model.encoder(modality, side), preprocess, preprocess.prepare(some), model.device)


def sides_of(model: EmbeddingModel, modality: Modality) -> list[Side | None]:
    """The sides on which items are fed in a way of their own, and `None`."""
    ways: dict[int, Side | None] = {}
    for side in (None, *SIDES):
        ways.setdefault(id(model.preprocess(modality, side)), side)
    return list(ways.values())


def farthest(one: Tensor, other: Tensor) -> float:
    """The largest difference between numbers of two tensors; infinite where their shapes differ or one is a NaN."""
    if one.shape != other.shape:
        return float("inf")
    return torch.nan_to_num((one - other).abs(), nan=float("inf")).max().item()


def where(model: EmbeddingModel, modality: Modality) -> str:
    """Of what a check tells: the model, its pooling, and the modality."""
    return f"{model.info.full_name} with pooling {model.pooling}, {modality}"
