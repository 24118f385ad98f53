"""A network of timm without its head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

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
        """The groups that timm itself makes for learning rates by layer: the stem, then stages or blocks."""
        groups, parameters = _groups(self.network), dict(self.network.named_parameters())
        group_of = {parameters[name]: number for number, names in groups.items() for name in names}
        seen: set[nn.Module] = set()
        stages = []
        for number in sorted(groups):
            parts = list(_parts(self.network, group_of, number, seen))
            modules = tuple(part for part in parts if isinstance(part, nn.Module))
            stages.append(Stage(f"stage {number}", modules, tuple(p for p in parts if isinstance(p, nn.Parameter))))
        return stages


class PooledExtractor(_Extractor):
    """timm's own embedding: features, its pooling, and all that stands between that and the classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dim = _width(network, "head_hidden_size", "num_features")

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        return Features.of_vectors(self.network(_channels_last(batch)))


class MapExtractor(_Extractor):
    """The feature map before timm's pooling, as a sequence of its positions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dim = _width(network, "num_features")

    def forward(self, batch: Batch) -> Features:
        """Features (B, H * W, D), row by row."""
        features: Tensor = self.network.forward_features(_channels_last(batch))  # type: ignore[operator]
        tokens = features.flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _channels_last(batch: Batch) -> Tensor:
    return batch["pixels"].contiguous(memory_format=torch.channels_last)


def _width(network: nn.Module, *attributes: str) -> int:
    """What a network says of its width. The core compares it with the row, which was measured."""
    for name in attributes:
        if isinstance(width := getattr(network, name, None), int):
            return width
    raise TypeError(f"{type(network).__name__} does not say how wide its embedding is.")


def _groups(network: nn.Module) -> Mapping[int, Sequence[str]]:
    """Names of the parameters of each group, numbered from the input on."""
    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
        groups: Mapping[int, Sequence[str]] = timm.models.group_parameters(network, matcher)
        return groups
    except (AttributeError, AssertionError):
        # A few architectures of timm have none: then each child is a group, and each module of a list of them.
        by_child: dict[str, list[str]] = {}
        for name, _ in network.named_parameters():
            child = re.match(r"[^.]+(\.\d+)?", name)
            by_child.setdefault(child[0] if child else name, []).append(name)
        return dict(enumerate(by_child.values()))


def _parts(
    module: nn.Module, group_of: Mapping[nn.Parameter, int], number: int, seen: set[nn.Module]
) -> Iterator[nn.Module | nn.Parameter]:
    """The largest modules all of whose parameters are in one group, and the parameters that no such module holds.

    A module that stands in two places is given once.
    """
    for parameter in module.parameters(recurse=False):
        if group_of[parameter] == number:
            yield parameter
    for child in module.children():
        inner = {group_of[parameter] for parameter in child.parameters()}
        if inner == {number}:
            if child not in seen:
                seen.add(child)
                yield child
        elif number in inner:
            yield from _parts(child, group_of, number, seen)
