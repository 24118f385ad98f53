"""A network of timm without its head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_core.plugin import OptionError
from finetuner_core.values import quote
from finetuner_timm.embedding import NoEmbeddingError
from finetuner_timm.library import timm
from finetuner_timm.memory import memory_format_of
from finetuner_timm.tokens import TokenLayout, find_layout
from finetuner_timm.unused import forget, keep_unused


def strip(network: nn.Module, pooling: str, image_size: tuple[int, int], *, name: str) -> FeatureExtractor:
    """Takes the classifier off, and out of training what the pooling does not need.

    Args:
        network: a network of timm; it is changed in place.
        pooling: `native` for timm's own embedding, `cls` for tokens with the class token first, any other for tokens.
        image_size: height and width in pixels of what the network sees.
        name: of the row, for the messages.

    Raises:
        NoEmbeddingError: if the network does not give one vector for an image.
        OptionError: if it has no tokens that could be pooled in this way.
    """
    if not hasattr(network, "reset_classifier"):
        raise NoEmbeddingError(name, "it has no classifier that could be taken off")
    network.reset_classifier(0)  # type: ignore[operator]
    # Of one image it is seen what comes out and which parameters had a part in it.
    pixels = torch.zeros(1, 3, *image_size, device=next(network.parameters()).device)
    forget(network)
    with torch.enable_grad():
        if pooling == "native":
            extractor, features = _native(network, pixels, name)
        else:
            extractor, features = _tokens(network, pixels, name, pooling)
    keep_unused(network, features)
    forget(network)
    return extractor


def _native(network: nn.Module, pixels: Tensor, name: str) -> tuple[FeatureExtractor, Tensor]:
    emitted = network(pixels)
    if not isinstance(emitted, Tensor) or emitted.ndim != 2 or len(emitted) != len(pixels):
        shape = f" of shape {tuple(emitted.shape[1:])}" if isinstance(emitted, Tensor) else ""
        raise NoEmbeddingError(name, f"of an image it makes a {type(emitted).__name__}{shape}, and not one vector")
    return PooledExtractor(network, emitted.shape[1]), emitted


def _tokens(network: nn.Module, pixels: Tensor, name: str, pooling: str) -> tuple[FeatureExtractor, Tensor]:
    layout = find_layout(network, pixels)
    if layout is None or (pooling == "cls" and not layout.has_class):
        raise OptionError(f"{name} does not support the pooling {quote(pooling)}.")
    tokens = layout.read(network, pixels, with_class=pooling == "cls")
    return TokenExtractor(network, tokens.shape[-1], layout, with_class=pooling == "cls"), tokens


class _Extractor(FeatureExtractor):
    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        self.network = network
        self.dim = dim
        self.memory_format = memory_format_of(network)

    def _pixels(self, batch: Batch) -> Tensor:
        return batch["pixels"].contiguous(memory_format=self.memory_format)

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

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        return Features.of_vectors(self.network(self._pixels(batch)))


class TokenExtractor(_Extractor):
    """The features of each part of the image, row by row, in the place of timm's own pooling.

    Args:
        network: a network of timm.
        dim: width of the features.
        layout: how its features are read.
        with_class: whether the class token comes first.
    """

    def __init__(self, network: nn.Module, dim: int, layout: TokenLayout, *, with_class: bool) -> None:
        super().__init__(network, dim)
        self.layout = layout
        self.with_class = with_class

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D)."""
        tokens = self.layout.read(self.network, self._pixels(batch), with_class=self.with_class)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


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
