"""What the plugin offers: one row, `mlp`. Importing this imports no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import BackboneInfo, Modality, OptionValue, hookimpl
from finetuner_mlp.rows import ROW

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone


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
