"""How the features of a network of timm are read as tokens, found out by asking the network itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetuner_timm.library import timm
from finetuner_timm.unused import reached


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens stand in what `forward_features` gives, and what timm's head does to each of them.

    Args:
        ndim: of the features: 4 for a map, 3 for a sequence.
        channels: the axis that holds a token's features.
        prefix: how many tokens stand for no part of the image: class, distillation and register tokens, which come
            first.
        has_class: whether the first of them is a class token.
        has_head: whether timm's head is applied to each token. Where its pooling is itself trained (attention), a
            pooling over tokens stands in its place, and the head goes with it.
    """

    ndim: int
    channels: int
    prefix: int
    has_class: bool
    has_head: bool

    def read(self, network: nn.Module, pixels: Tensor, *, with_class: bool) -> Tensor:
        """Tokens (B, T, D) of images, row by row, perhaps with the class token before them."""
        features: Tensor = network.forward_features(pixels)  # type: ignore[operator]
        tokens = features.movedim(self.channels, -1).flatten(1, -2)
        parts = tokens[:, self.prefix :]
        if with_class:
            parts = torch.cat([tokens[:, :1], parts], 1)
        return self._alone(network, parts) if self.has_head else parts

    def _alone(self, network: nn.Module, tokens: Tensor) -> Tensor:
        """What timm's head makes of each token, were it all that the image has.

        The pool of one thing is that thing, so what is left is what the head does before and after it (norms,
        convolutions, layers): the tokens come out in the space of timm's own embedding, and no layer is left out.
        """
        shape = [1] * self.ndim
        shape[0], shape[self.channels] = tokens.shape[0] * tokens.shape[1], tokens.shape[2]
        images = tokens.reshape(shape)
        if self.prefix:
            # As often as there are tokens before the first real one: whichever the head takes, it is this.
            images = images.expand(-1, self.prefix + 1, -1)
        vectors: Tensor = network.forward_head(images)  # type: ignore[operator]
        return vectors.view(*tokens.shape[:2], -1)


def find_layout(network: nn.Module, pixels: Tensor) -> TokenLayout | None:
    """The layout of a network whose classifier is off, or `None` where its features are no tokens.

    Args:
        network: a network of timm.
        pixels: images (B, 3, H, W) of the size that it sees.
    """
    # Past the last layers of these goes the class token alone: the others are not what the network ends in.
    if not hasattr(network, "forward_head") or any("ClassAtt" in type(m).__name__ for m in network.modules()):
        return None
    with torch.enable_grad():
        features = network.forward_features(pixels)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        return None
    pool = _trained_pool(network, features)
    if isinstance(pool, nn.Conv2d):
        return None
    layouts = _candidates(network, features, pixels, has_head=pool is None)
    with torch.no_grad():
        return next((layout for layout in layouts if _fits(layout, network, features)), None)


def _trained_pool(network: nn.Module, features: Tensor) -> nn.Module | None:
    """What in the head takes the positions together with weights of its own: attention, or a convolution over them."""
    before = reached(features)
    for module in network.modules():
        if (
            isinstance(module, _ATTENTION_POOLS) or (isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1))
        ) and not any(id(parameter) in before for parameter in module.parameters()):
            return module
    return None


def _candidates(network: nn.Module, features: Tensor, pixels: Tensor, *, has_head: bool) -> Iterator[TokenLayout]:
    for channels in {4: (1, 3), 3: (2, 1)}.get(features.ndim, ()):
        count = math.prod(features.shape[1:]) // features.shape[channels]
        prefix = 0
        if features.ndim == 3:
            declared = getattr(network, "num_prefix_tokens", 0)
            fitting = [p for p in (declared, 0, 1) if _is_grid(count - p, *pixels.shape[-2:])]
            # What gives its class tokens alone (PiT) has none that stand for a part of the image.
            if not fitting or count - fitting[0] < 2:
                continue
            prefix = fitting[0]
        has_class = prefix > 0 and any(re.search(r"\bcls_token\d*$", name) for name, _ in network.named_parameters())
        yield TokenLayout(features.ndim, channels, prefix, has_class, has_head)


def _fits(layout: TokenLayout, network: nn.Module, features: Tensor) -> bool:
    """Whether the head takes the channels where the layout has them: then, and only then, its own width comes out."""
    if not layout.has_head:
        return features.shape[layout.channels] == getattr(network, "num_features", None)
    tokens = features.movedim(layout.channels, -1).flatten(1, -2)[:, :1]
    try:
        of_one = layout._alone(network, tokens).shape[-1]
        of_all: Tensor = network.forward_head(features)  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
        return False
    return of_one == of_all.shape[-1]


def _is_grid(count: int, height: int, width: int) -> bool:
    """Whether so many tokens can lie over an image, as many to an inch in one direction as in the other."""
    rows = math.isqrt(count * height // width) if count > 0 else 0
    return rows > 0 and count % rows == 0 and rows * width == count // rows * height


_ATTENTION_POOLS: tuple[type[nn.Module], ...] = (
    timm.layers.AttentionPoolLatent,
    timm.layers.AttentionPoolPrr,
    timm.layers.AttentionPool2d,
    timm.layers.RotAttentionPool2d,
)
