"""Rows for what is not listed: every architecture of timm, and folders in its format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import TOKEN_POOLINGS, BackboneInfo
from finetuner_core.untrusted import read_json
from finetuner_timm.embedding import NoEmbeddingError
from finetuner_timm.extractors import strip
from finetuner_timm.library import timm
from finetuner_timm.rows import OPTIONS
from finetuner_timm.tokens import find_layout
from finetuner_timm.undrawn import undrawn


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
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and timm.is_model(str(config.get("architecture", "")))


def _row(name: str, model_name: str, *, description: str, source: str, licence: str = "") -> BackboneInfo:
    # On the meta device a network costs nothing and still tells what it emits, whatever its attributes say.
    with torch.device("meta"), undrawn():
        network = timm.create_model(model_name).eval()
        channels, *size = network.pretrained_cfg["input_size"]
        if channels != 3:
            raise NoEmbeddingError(name, f"it takes images of {channels} channels, and pictures have 3")
        native = strip(network, "native", (size[0], size[1]), name=name)
        layout = find_layout(network, torch.zeros(1, 3, *size))
    poolings = ("native",) if layout is None else ("native", *TOKEN_POOLINGS, *(("cls",) if layout.has_class else ()))
    return BackboneInfo(
        name=name,
        task="image-to-image",
        output_dim=native.dim,
        architecture=type(network).__name__,
        description=description,
        poolings=poolings,
        options=OPTIONS,
        licence=licence,
        source=source,
        parameters=sum(parameter.numel() for parameter in native.parameters()),
    )
