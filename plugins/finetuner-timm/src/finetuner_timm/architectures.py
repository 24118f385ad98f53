"""Rows for what is not listed: every architecture of timm, and folders in its format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import BackboneInfo
from finetuner_timm.library import timm
from finetuner_timm.rows import MAP_POOLINGS, OPTIONS


def find(name: str) -> BackboneInfo | None:
    """The row of an architecture, `name` or `name.tag`, or of a folder; `None` for what timm does not know."""
    if is_path(name):
        folder = Path(name).expanduser().resolve()
        if not is_folder(folder):
            return None
        return _row(str(folder), f"local-dir:{folder}", description="From a folder", source=str(folder))
    architecture, dot, _ = name.partition(".")
    if not timm.is_model(architecture) or (dot and name not in timm.list_pretrained(f"{architecture}.*")):
        return None
    weights = timm.models.get_pretrained_cfg(name)
    tag = (weights.tag or "") if weights else ""
    return _row(
        name,
        name,
        description=f"Pretrained weights {tag}" if tag else "No pretrained weights",
        licence=(weights.license or "") if weights else "",
        source=f"https://huggingface.co/{weights.hf_hub_id}" if weights and weights.hf_hub_id else "",
    )


def names(pattern: str) -> Iterable[str]:
    """All architectures, and all with a tag where the pattern asks for one."""
    found: list[str] = timm.list_pretrained(pattern) if "." in pattern else timm.list_models(pattern)
    return found


def is_folder(folder: Path) -> bool:
    """Whether a folder has timm's format: a `config.json` that names an architecture of timm."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and timm.is_model(str(config.get("architecture", "")))


def _row(name: str, model_name: str, *, description: str, source: str, licence: str = "") -> BackboneInfo | None:
    # On the meta device a network costs nothing and still tells what it emits, whatever its attributes say.
    with torch.device("meta"):
        network = timm.create_model(model_name, num_classes=0).eval()
        emitted = network(torch.empty(1, *network.pretrained_cfg["input_size"]))
    if not isinstance(emitted, torch.Tensor) or emitted.ndim != 2:
        return None
    return BackboneInfo(
        name=name,
        task="image-to-image",
        output_dim=emitted.shape[1],
        architecture=type(network).__name__,
        description=description,
        poolings=("native", *MAP_POOLINGS) if _ends_in_a_map(network) else ("native",),
        options=OPTIONS,
        licence=licence,
        source=source,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def _ends_in_a_map(network: nn.Module) -> bool:
    """Whether nothing that is trained stands between the feature map and the classifier.

    True of the families of the listed rows. Of others it is not known, and a pooling that left trained parameters out
    would be a lie.
    """
    return isinstance(network, timm.models.ResNet | timm.models.EfficientNet)
