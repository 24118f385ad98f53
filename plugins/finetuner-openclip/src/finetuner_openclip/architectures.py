"""What a name means: an architecture of open_clip, perhaps with the tag of its weights, or a folder in its format."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import WeightsError
from finetuner_core.values import near, quote
from finetuner_openclip.library import open_clip
from finetuner_openclip.rows import DEFAULT_TAGS

CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Architecture:
    """A model as open_clip describes it.

    Args:
        name: what open_clip is to create: an architecture without a tag, or `local-dir:` and a folder.
        config: what it builds it from.
        tags: the names of the weights that there are.
        tag: which of them is meant; empty where there are none, or more than one could be meant.
        weights: what open_clip knows of these.
        folder: where it was saved, if it was.
    """

    name: str
    config: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    tag: str = ""
    weights: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def repository(self) -> str:
        """Where on the Hub its weights are, empty where they are not there."""
        return str(self.weights.get("hf_hub", "")).rpartition("/")[0]

    @property
    def source(self) -> str:
        """Where its weights are, a URL or a folder."""
        hub = f"https://huggingface.co/{self.repository}" if self.repository else ""
        return str(self.folder or hub or self.weights.get("url", ""))


def known(name: str) -> Architecture | None:
    """What a name or a path means, `None` where open_clip does not know it.

    Raises:
        WeightsError: if it knows the architecture and not the tag, or the folder holds something else than a CLIP.
    """
    if is_path(name):
        return _of_folder(Path(name).expanduser().resolve())
    architecture, dot, tag = name.partition(".")
    if architecture not in open_clip.list_models():
        return None
    tags = tuple(open_clip.list_pretrained_tags_by_model(architecture))
    if dot and tag not in tags:
        there = f"It has {', '.join(tags)}." if tags else f"It has none: write openclip/{architecture}."
        raise WeightsError(f"open_clip has no weights {quote(tag)} for {architecture}.{near(tag, tags)}\n{there}")
    if not dot:
        tag = tags[0] if len(tags) == 1 else DEFAULT_TAGS.get(architecture, "")
    weights = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    return Architecture(architecture, open_clip.get_model_config(architecture), tags, tag, weights)


def names(pattern: str) -> Iterable[str]:
    """All architectures, and all with a tag where the pattern asks for one."""
    tagged = [f"{architecture}.{tag}" for architecture, tag in open_clip.list_pretrained()]
    return fnmatch.filter(tagged if "." in pattern else open_clip.list_models(), pattern)


def _of_folder(folder: Path) -> Architecture | None:
    try:
        content = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    for tower in ("vision_cfg", "text_cfg"):
        if not isinstance(config.get(tower), dict):
            has = ", ".join(key for key in config if key.endswith("_cfg")) or "none"
            raise WeightsError(
                f"{folder / CONFIG} describes no model of texts and images: it has no {tower} (there is: {has}).\n"
                "finetuner-openclip opens those alone; audio and generative models have no place in its space."
            )
    if "naflex" in str(config["vision_cfg"].get("timm_model_name", "")):
        raise WeightsError(
            f"{folder} has an image tower for pictures of differing sizes (NaFlex), which is not supported.\n"
            "Take a model of the same family with one size, such as openclip/ViT-B-16-SigLIP2."
        )
    return Architecture(f"local-dir:{folder}", config, folder=folder)
