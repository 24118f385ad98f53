"""The light half of the toy plugin."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.plugin import (
    TEXT_POOLINGS,
    TOKEN_POOLINGS,
    BackboneInfo,
    Modality,
    Option,
    OptionValue,
    hookimpl,
)

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone

ROWS = {
    row.name: row
    for row in (
        BackboneInfo(
            "letters",
            "text-to-text",
            16,
            "toy",
            "Letters, embedded",
            poolings=TEXT_POOLINGS,
            options=(Option("dropout", "float", 0.0, "Of the embedded letters.", minimum=0),),
        ),
        BackboneInfo("pixels", "image-to-image", 12, "toy", "Pixels, convolved", poolings=("native", *TOKEN_POOLINGS)),
        BackboneInfo("both", "text-to-image", 8, "toy", "Letters and pixels in one space"),
        BackboneInfo(
            "numbers",
            "all",
            None,
            "toy",
            "Numbers, mixed",
            options=(Option("input_size", "int", None, "Width of the vectors.", minimum=1, required=True),),
        ),
    )
}


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return ROWS.values()


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    config = Path(name) / "config.json"
    if not config.is_file():
        return None
    content = json.loads(config.read_text())
    row = ROWS.get(content.get("acme"))
    if row is None:
        return None
    return BackboneInfo(name, row.task, row.output_dim, row.architecture, row.description, poolings=row.poolings)


@hookimpl
def find_backbone_names(pattern: str) -> Iterable[str]:
    return fnmatch.filter([*ROWS, "unlisted"], pattern)


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    from acme import networks

    return networks.load(info, pretrained, options)


@hookimpl
def strip_head(loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    from acme import networks

    return networks.strip(loaded, pooling)
