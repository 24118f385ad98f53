"""What the plugin offers: one row, `mlp`. Importing this imports no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import BackboneInfo, Modality, Option, OptionValue, hookimpl

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone

ROW = BackboneInfo(
    name="mlp",
    task="all",
    output_dim=None,
    architecture="MLP",
    description="Simple MLP encoder trained from scratch",
    options=(
        Option(
            "input_size", "int", None, "Width of the vectors; fit takes it from the data.", minimum=1, required=True
        ),
        Option("hidden_sizes", "ints", (512, 256), "Width of each layer; the last is the embedding's.", minimum=1),
        Option("activation", "str", "gelu", "Between the layers.", choices=("relu", "gelu", "silu", "tanh")),
        Option("bias", "bool", True, "Whether layers have a bias."),
        Option("dropout", "float", 0.0, "Share of values dropped after each activation in training.", minimum=0),
    ),
    licence="Apache-2.0",
    source="finetuner-mlp",
)


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return (ROW,)


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    if name == ROW.name:
        return ROW
    if not is_path(name):
        return None
    from finetuner_mlp.backbone import read_row

    return read_row(Path(name).expanduser().resolve())


@hookimpl
def find_backbone_names(pattern: str) -> Iterable[str]:
    return fnmatch.filter([ROW.name], pattern)


@hookimpl
def load_backbone(info: BackboneInfo, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    from finetuner_mlp.backbone import load

    return load(info, options)


@hookimpl
def strip_head(loaded: LoadedBackbone) -> Mapping[Modality, FeatureExtractor]:
    from finetuner_mlp.backbone import Extractor

    return {"vector": Extractor(loaded.network)}
