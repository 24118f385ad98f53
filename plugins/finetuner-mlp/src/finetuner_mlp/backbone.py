"""The network, how it is fed, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Stage
from finetuner_core.plugin import BackboneInfo, DataError, OptionError, OptionValue, WeightsError
from finetuner_core.untrusted import read_json
from finetuner_core.values import quote, resolve_options
from finetuner_mlp.rows import ROW

FORMAT = "finetuner-mlp"
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def build(
    *, input_size: int, hidden_sizes: Sequence[int], activation: str, bias: bool, dropout: float
) -> nn.Sequential:
    """Linear layers with an activation and dropout between them; nothing follows the last, whose output is the vector.

    Raises:
        OptionError: if there is no layer, or everything would be dropped.
    """
    if not hidden_sizes:
        raise OptionError("hidden_sizes is empty; an MLP has at least one layer, such as 256.")
    if not dropout < 1:
        raise OptionError(f"dropout is {dropout}; it must be less than 1.")
    layers: list[nn.Module] = []
    for number, size in enumerate(hidden_sizes):
        if number:
            layers += [_ACTIVATIONS[activation](), nn.Dropout(dropout)]
        layers.append(nn.Linear(input_size if number == 0 else hidden_sizes[number - 1], size, bias=bias))
    return nn.Sequential(*layers)


def load(info: BackboneInfo, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """A new network of the row `mlp`, or the one that a folder holds."""
    folder = Path(info.name)
    config: dict[str, Any] = dict(options) if options else _read_config(folder)
    if not options:
        _check_weights(folder, config)
    network = build(**config)
    if not options:
        network.load_state_dict(load_file(folder / "model.safetensors"))

    def save(network: nn.Module, target: Path) -> None:
        (target / "config.json").write_text(json.dumps({"format": FORMAT, **config}, indent=2) + "\n", "utf-8")
        save_file({name: tensor.cpu() for name, tensor in network.state_dict().items()}, target / "model.safetensors")

    return LoadedBackbone(network, {"vector": VectorPreprocess(config["input_size"])}, save)


def read_row(folder: Path) -> BackboneInfo | None:
    """The row of a folder that `load(...).save` has written, or `None` for any other."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        return None
    # What a person may have edited is checked like what a person types. On the meta device a network costs nothing.
    with torch.device("meta"):
        network = build(**_read_config(folder))
    return BackboneInfo(str(folder), "all", Extractor(network).dim, "MLP", "MLP encoder from a folder")


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", strict=True)
    del config["format"]
    return dict(resolve_options(ROW.options, config, str(folder)))


def _check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Whether the file holds the weights that the network needs, asked before it takes the memory for them.

    Raises:
        WeightsError: if not.
    """
    with torch.device("meta"):
        needed = {name: list(tensor.shape) for name, tensor in build(**config).state_dict().items()}
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            held = {name: part.get_shape() for name, part in slices.items()}
            strange = next((part.get_dtype() for part in slices.values() if not _is_float(part.get_dtype())), None)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"The weights in {folder} cannot be loaded: {error}") from None
    wrong = next((name for name in sorted({*needed, *held}) if needed.get(name) != held.get(name)), None)
    if wrong is not None:
        raise WeightsError(
            f"The weights in {folder} cannot be loaded: {quote(wrong)} has the shape {held.get(wrong, 'of nothing')}, "
            f"and its config.json asks for {needed.get(wrong, 'none')}."
        )
    if strange is not None:
        raise WeightsError(f"The weights in {folder} cannot be loaded: they are of type {strange}, and no floats.")


def _is_float(kind: str) -> bool:
    return kind.startswith(("F", "BF"))


class VectorPreprocess:
    """Vectors need no preparation but to be numbers of the right width.

    Args:
        width: how many numbers a vector has.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def prepare(self, items: Sequence[object]) -> list[np.ndarray]:
        """The vectors, float32 (width,) each."""
        try:
            vectors = np.asarray(items, dtype=np.float32)
        except (TypeError, ValueError):
            raise DataError("Vectors must be numbers, all of one width.") from None
        if len(vectors) and vectors.shape[1:] != (self.width,):
            raise DataError(
                f"The model takes vectors of width {self.width}, and these have the shape {vectors.shape[1:]}."
            )
        if not np.isfinite(vectors).all():
            wrong = np.flatnonzero(~np.isfinite(vectors).all(1))[0]
            raise DataError(f"Vector {wrong} holds a NaN or an infinite value.")
        return list(vectors)

    def length(self, prepared: np.ndarray) -> int:
        """1: a vector is one token."""
        return 1

    def collate(self, prepared: Sequence[np.ndarray]) -> Batch:
        """`vectors`, float32 (B, width)."""
        return {"vectors": torch.from_numpy(np.stack(prepared))}

    def export(self, folder: Path) -> Mapping[str, object]:
        """How wide vectors are; there is nothing else to say of them."""
        return {"width": self.width}


class Extractor(FeatureExtractor):
    """The network as it is: it has no head.

    Args:
        network: what `build` gave.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        assert isinstance(network, nn.Sequential)
        last = network[-1]
        assert isinstance(last, nn.Linear)
        self.network = network
        self.dim = last.out_features

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        vectors: Tensor = self.network(batch["vectors"])
        return Features.of_vectors(vectors)

    def stages(self) -> Sequence[Stage]:
        """The linear layers, each with the activation and the dropout that follow it."""
        stages: list[list[nn.Module]] = []
        for module in self.network:
            if isinstance(module, nn.Linear):
                stages.append([])
            stages[-1].append(module)
        return [Stage(f"layer {number}", tuple(modules)) for number, modules in enumerate(stages, 1)]
