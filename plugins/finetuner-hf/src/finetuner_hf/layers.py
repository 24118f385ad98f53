"""What sentence-transformers can declare behind a network: how tokens are pooled, and layers over the vector.

Each layer's parameters are named as that library names them, so that its files are read and written as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.interfaces import Features
from finetuner_core.modeling.pooling import ClsPooling, LastPooling, MaxPooling, MeanPooling

Settings = Mapping[str, object]


class UndeclaredError(ValueError):
    """A declaration that is not understood; its text says, for a person, what is declared."""


class DeclaredPooling(nn.Module):
    """Tokens pooled, in several ways at once where so declared, and what the layers make of that vector.

    Args:
        dim: width of the tokens.
        modes: how they are pooled, in the words of sentence-transformers.
        layers: what follows.
        truncate_dim: how many of the first numbers are kept, `None` for all.
    """

    def __init__(self, dim: int, modes: Sequence[str], layers: Sequence[Layer], truncate_dim: int | None) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.layers = nn.ModuleList(layers)
        self.truncate_dim = truncate_dim
        width = layers[-1].width if layers else dim * len(self.modes)
        self.dim = min(width, truncate_dim or width)

    def forward(self, features: Features, pooled: Tensor) -> Tensor:
        """Vectors (B, dim).

        Args:
            features: of all tokens (B, T, D).
            pooled: which of them enter the pooling (B, T). A text of which none does is pooled whole.
        """
        pooled = torch.where(pooled.any(1, keepdim=True), pooled & features.mask, features.mask)
        vectors = torch.cat([MODES[mode](features, pooled) for mode in self.modes], -1)
        for layer in self.layers:
            vectors = layer(vectors)
        return vectors[:, : self.dim]


def _core(pooling: Callable[[int], nn.Module]) -> Callable[[Features, Tensor], Tensor]:
    def pool(features: Features, pooled: Tensor) -> Tensor:
        vectors: Tensor = pooling(features.tokens.shape[-1])(Features(features.tokens, pooled))
        return vectors

    return pool


def _mean_by_root(features: Features, pooled: Tensor) -> Tensor:
    """The sum of the tokens by the square root of their number."""
    return _core(MeanPooling)(features, pooled) * pooled.sum(1, keepdim=True).sqrt()


def _weighted_mean(features: Features, pooled: Tensor) -> Tensor:
    """The mean in which the i-th token weighs i, those of a prompt that is not pooled counted too."""
    weights = (features.mask.cumsum(1) * pooled).unsqueeze(-1)
    tokens = features.tokens.masked_fill(~pooled.unsqueeze(-1), 0)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


MODES: Mapping[str, Callable[[Features, Tensor], Tensor]] = {
    "cls": _core(ClsPooling),
    "max": _core(MaxPooling),
    "mean": _core(MeanPooling),
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _core(LastPooling),
}


class Layer(nn.Module):
    """One module over the vector.

    Args:
        settings: as its file has them.
        width: of what comes in.
    """

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.width = width


class Dense(Layer):
    """A linear layer and an activation."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__(settings, _number(settings, "out_features"))
        _only_over_the_vector(settings, "Dense")
        _check_width("Dense", _number(settings, "in_features"), width)
        self.linear = nn.Linear(width, self.width, bias=settings.get("bias", True) is not False)
        self.activation = _activation(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
        self.has_residual = settings.get("use_residual") is True
        if self.has_residual and width != self.width:
            self.residual = nn.Linear(width, self.width, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, width)."""
        made: Tensor = self.activation(self.linear(vectors))
        if not self.has_residual:
            return made
        return made + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class LayerNorm(Layer):
    """A layer norm."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__(settings, width)
        _check_width("LayerNorm", _number(settings, "dimension"), width)
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, width)."""
        made: Tensor = self.norm(vectors)
        return made


class Normalize(Layer):
    """Scales to length 1."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__(settings, width)
        _only_over_the_vector(settings, "Normalize")

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, width)."""
        return F.normalize(vectors, dim=-1)


class Dropout(Layer):
    """Dropout, in training."""

    def __init__(self, settings: Settings, width: int) -> None:
        super().__init__(settings, width)
        rate = settings.get("dropout", 0.2)
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise UndeclaredError(f"a Dropout of {rate!r}")
        self.dropout = nn.Dropout(rate)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, width)."""
        made: Tensor = self.dropout(vectors)
        return made


LAYERS: Mapping[str, type[Layer]] = {layer.__name__: layer for layer in (Dense, LayerNorm, Normalize, Dropout)}


def _number(settings: Settings, name: str) -> int:
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise UndeclaredError(f"a layer whose {name} is {value!r}")
    return value


def _check_width(kind: str, expected: int, width: int) -> None:
    if expected != width:
        raise UndeclaredError(f"a {kind} layer for vectors of width {expected}, where they have {width}")


def _only_over_the_vector(settings: Settings, kind: str) -> None:
    for name in ("module_input_name", "module_output_name"):
        if (value := settings.get(name)) not in (None, "sentence_embedding"):
            raise UndeclaredError(f'the module {kind} over "{value}"')


def _activation(path: object) -> nn.Module:
    """The activation of that path, one of torch's own: a name never runs what a repository brings."""
    module, _, name = str(path).rpartition(".")
    known = ("Identity", *nn.modules.activation.__all__)
    try:
        if not module.startswith("torch.nn") or name not in known:
            raise TypeError
        made: nn.Module = getattr(nn, name)()
    except TypeError:
        raise UndeclaredError(f'a Dense layer with the activation "{path}"') from None
    return made
