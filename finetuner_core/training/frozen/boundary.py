"""Where the frozen part of an encoder ends, and how the encoder goes on from there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.modeling.pooling import NativePooling
from finetuner_core.training.frozen.cut import (
    MASK,
    Cut,
    autocast,
    batch_of,
    evaluating,
    in_precision,
    mask_of,
    name_of,
)
from finetuner_core.training.frozen.find import Probe, find_cut
from finetuner_core.training.frozen.layout import Layout, Part


class Boundary(ABC):
    """What is kept of each item, and what makes embeddings of it.

    Args:
        layout: how it is kept.
        encoder: goes on from there with the very modules of the real encoder, so that training it trains the model.
    """

    what: ClassVar[str]
    """What is kept, as a person would call it."""

    pooled: ClassVar[bool] = False
    """Whether it follows from the pooling as well."""

    within: ClassVar[bool] = False
    """Whether a part of the network is still to be computed of it."""

    def __init__(self, layout: Layout, encoder: Encoder) -> None:
        self.layout, self.encoder = layout, encoder

    @abstractmethod
    def compute(self, batch: Batch, lengths: Sequence[int]) -> list[np.ndarray]:
        """The record of each item of a batch, uint8."""

    def length(self, record: np.ndarray) -> int:
        """How many tokens the encoder will see of an item."""
        return self.layout.tokens(record)

    @abstractmethod
    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """The weights and buffers that they follow from, by name."""

    def batch(self, records: Sequence[np.ndarray]) -> Batch:
        """What the encoder takes, on the CPU."""
        tensors, mask = self.layout.tensors(records)
        return batch_of(tensors, mask, torch.device("cpu"))

    def fingerprint(self, *said: object) -> str:
        """SHA-256 over all that records follow from beside the items.

        Args:
            said: what else there is, such as the name of the network.
        """
        digest = hashlib.sha256(repr((self.what, self.layout, *said)).encode())
        for name, tensor in sorted(self.frozen(), key=lambda found: found[0]):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Vectors(FeatureExtractor):
    """Gives the vectors that were kept, as sequences of one token.

    Args:
        dim: their width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        return Features.of_vectors(batch[name_of(0)])

    def stages(self) -> Sequence[Stage]:
        """None: nothing is computed."""
        return ()


class Tokens(Vectors):
    """Gives the token features that were kept."""

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D)."""
        return Features(batch[name_of(0)], batch[MASK])


class PooledBoundary(Boundary):
    """Behind the pooling, where neither network nor pooling are trained."""

    what = "pooled vectors"
    pooled = True

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self._real = encoder
        dim = encoder.pooling.dim
        rest = Encoder(extractor=Vectors(dim), pooling=NativePooling(dim), projection=encoder.projection)
        super().__init__(Layout((Part(("B", dim), dtype),)), rest)

    def compute(self, batch: Batch, lengths: Sequence[int]) -> list[np.ndarray]:
        """The vectors (D,) of a batch."""
        vectors = self._real.pooling(self._real.extractor(batch))
        return self.layout.records([vectors], self.layout.mask([1] * len(lengths)))

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Those of network and pooling."""
        for name in ("extractor", "pooling"):
            yield from ((f"{name}.{key}", tensor) for key, tensor in _tensors(getattr(self._real, name)))


class TokenBoundary(Boundary):
    """Behind the network, where the pooling is trained."""

    what = "token features"

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self._real = encoder
        dim = encoder.extractor.dim
        rest = Encoder(extractor=Tokens(dim), pooling=encoder.pooling, projection=encoder.projection)
        super().__init__(Layout((Part(("B", "T", dim), dtype),)), rest)

    def compute(self, batch: Batch, lengths: Sequence[int]) -> list[np.ndarray]:
        """The features (T, D) of the real tokens of each item, wherever padding stands."""
        features: Features = self._real.extractor(batch)
        return self.layout.records([features.tokens], features.mask.cpu())

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        yield from _tensors(self._real.extractor)


class StageBoundary(Boundary):
    """Within the network, behind its frozen stages."""

    what = "features behind the frozen stages"
    within = True

    def __init__(self, encoder: Encoder, stages: Sequence[Stage], cut: Cut, length: int) -> None:
        self._stages, self._cut, self._length = stages, cut, length
        super().__init__(
            cut.layout, Encoder(extractor=cut.rest, pooling=encoder.pooling, projection=encoder.projection)
        )

    def compute(self, batch: Batch, lengths: Sequence[int]) -> list[np.ndarray]:
        """What the rest of the network needs of each item."""
        return self.layout.records(self._cut.compute(batch), mask_of(self.layout, batch, lengths))

    def length(self, record: np.ndarray) -> int:
        """How many tokens the encoder will see of an item: where all are padded to one length, that of the longest."""
        return self.layout.tokens(record) if self.layout.per_token else self._length

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Those of the frozen stages."""
        for number, stage in enumerate(self._stages):
            for place, module in enumerate(stage.modules):
                yield from ((f"{number}.{place}.{key}", tensor) for key, tensor in _tensors(module))
            yield from ((f"{number}.{place}", parameter) for place, parameter in enumerate(stage.parameters))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, those too that are not saved."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def frozen_stages(extractor: FeatureExtractor, frozen: Sequence[nn.Module]) -> list[Stage]:
    """The stages from the input on of which nothing is trained and all stays in evaluation mode.

    Args:
        extractor: a network.
        frozen: the modules that stay in evaluation mode.
    """
    still = {id(inner) for module in frozen for inner in module.modules()}
    found: list[Stage] = []
    for stage in extractor.stages():
        inner = [parameter for module in stage.modules for parameter in module.parameters()]
        if any(parameter.requires_grad for parameter in (*inner, *stage.parameters)):
            break
        if any(id(module) not in still for module in stage.modules):
            break
        found.append(stage)
    return found


def find_boundary(encoder: Encoder, frozen: Sequence[nn.Module], probe: Probe, dtype: torch.dtype) -> Boundary | None:
    """The boundary of an encoder that is frozen in part, `None` where it is trained from its input on.

    Args:
        encoder: the real one.
        frozen: the modules that stay in evaluation mode.
        probe: items to try it with.
        dtype: what the forward pass computes in.

    Raises:
        NotCachedError: if a part is frozen and cannot be cached.
    """
    stages = frozen_stages(encoder.extractor, frozen)
    if not stages:
        return None
    batch, _ = probe.batch(probe.prepared[:2])
    with evaluating(encoder):
        if len(stages) < len(encoder.extractor.stages()):
            modules = [module for stage in stages for module in stage.modules]
            cut = find_cut(encoder.extractor, modules, probe)
            longest = max(map(probe.feed.length, probe.prepared))
            return StageBoundary(encoder, stages, in_precision(cut, batch, dtype, probe.device), longest)
        with torch.no_grad(), autocast(probe.device, dtype):
            features = encoder.extractor(batch)
            if any(parameter.requires_grad for parameter in encoder.pooling.parameters()):
                return TokenBoundary(encoder, features.tokens.dtype)
            return PooledBoundary(encoder, encoder.pooling(features).dtype)
