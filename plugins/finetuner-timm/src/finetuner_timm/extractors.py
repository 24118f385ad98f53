"""A network of timm without its head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_timm.library import timm


def strip(network: nn.Module, pooling: str) -> FeatureExtractor:
    """Takes the classifier off.

    Args:
        network: a network of timm; it is changed in place.
        pooling: `native` for timm's own embedding, any other for the feature map.
    """
    network.reset_classifier(0)  # type: ignore[operator]
    return PooledExtractor(network) if pooling == "native" else MapExtractor(network)


class _Extractor(FeatureExtractor):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def stages(self) -> Sequence[Stage]:
        """The groups that timm itself makes for learning rates by layer: stem, stages or blocks, final norm."""
        matcher = self.network.group_matcher(coarse=True)  # type: ignore[operator]
        groups = timm.models.group_parameters(self.network, matcher)
        group_of = {name: number for number, names in groups.items() for name in names}
        stages = []
        for number in sorted(groups):
            modules, parameters = [], []
            for part in _parts(self.network, "", group_of, number):
                (parameters if isinstance(part, nn.Parameter) else modules).append(part)
            stages.append(Stage(f"stage {number}", tuple(modules), tuple(parameters)))  # type: ignore[arg-type]
        return stages


class PooledExtractor(_Extractor):
    """timm's own embedding: features, its pooling, and all that stands between that and the classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dim = _emitted(network)

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        return Features.of_vectors(self.network(_channels_last(batch)))


class MapExtractor(_Extractor):
    """The feature map before timm's pooling, as a sequence of its positions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dim = cast("int", network.num_features)

    def forward(self, batch: Batch) -> Features:
        """Features (B, H * W, D), row by row."""
        features: Tensor = self.network.forward_features(_channels_last(batch))  # type: ignore[operator]
        tokens = features.flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _channels_last(batch: Batch) -> Tensor:
    return batch["pixels"].contiguous(memory_format=torch.channels_last)


def _emitted(network: nn.Module) -> int:
    """The width of what the network emits, seen on the smallest input that tells it."""
    for name in ("head_hidden_size", "num_features"):
        if isinstance(width := getattr(network, name, None), int):
            return width
    raise TypeError(f"{type(network).__name__} does not say how wide its embedding is.")


def _parts(module: nn.Module, path: str, group_of: dict[str, int], number: int) -> Iterator[nn.Module | nn.Parameter]:
    """The largest modules all of whose parameters are in one group, and the parameters that no such module holds."""
    for name, parameter in module.named_parameters(recurse=False):
        if group_of[path + name] == number:
            yield parameter
    for name, child in module.named_children():
        inner = {group_of[f"{path}{name}.{parameter}"] for parameter, _ in child.named_parameters()}
        if inner == {number}:
            yield child
        elif number in inner:
            yield from _parts(child, f"{path}{name}.", group_of, number)
