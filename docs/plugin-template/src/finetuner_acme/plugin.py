"""What the plugin offers: one row. Importing this imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import BackboneInfo, Modality, Option, OptionValue, hookimpl
from finetuner_core.values import resolve_options

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone

FORMAT = "finetuner-acme"
ROW = BackboneInfo(
    name="ngrams",
    task="text-to-text",
    output_dim=128,
    architecture="CNN",
    description="Character n-grams, trained from scratch",
    poolings=("mean", "max", "attention"),
    options=(Option("buckets", "int", 10_000, "How many vectors the n-grams share.", minimum=1),),
    licence="Apache-2.0",
)


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return [ROW]


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    """The row of a folder that the plugin has saved: it is loaded again without options."""
    is_ours = is_path(name) and read_config(Path(name)) is not None
    return replace(ROW, name=name, options=()) if is_ours else None


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    from finetuner_acme.backbone import load

    return load(info, pretrained, options)


@hookimpl
def strip_head(loaded: LoadedBackbone) -> Mapping[Modality, FeatureExtractor]:
    from finetuner_acme.backbone import NgramNetwork

    # It has no head. One that has would lose it here.
    assert isinstance(loaded.network, NgramNetwork)
    return {"text": loaded.network}


def read_config(folder: Path) -> dict[str, OptionValue] | None:
    """The options that a saved folder holds, checked like what a person types; `None` for any other folder."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        return None
    return resolve_options(ROW.options, config, str(folder))
