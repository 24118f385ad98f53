"""What a name means: an architecture of open_clip, perhaps with the tag of its weights, or a folder in its format."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import WeightsError
from finetuner_core.untrusted import read_json
from finetuner_core.values import near, quote
from finetuner_openclip.library import open_clip
from finetuner_openclip.rows import DEFAULT_TAGS

CONFIG = "open_clip_config.json"

TEXT_FOLDER = "text_model"
"""Where a saved folder has the configuration of a text tower of transformers, for which open_clip asks the Hub."""

# What a folder may have said to the class of its tokenizer; others let it run code, or read other files.
_TOKENIZER_SETTINGS = frozenset(
    ("clean", "context_length", "language", "reduction_mask", "strip_sep_token", "tokenizer_mode")
)


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
        content = read_json(folder / CONFIG)
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
    _check_within(folder, config)
    if "naflex" in str(config["vision_cfg"].get("timm_model_name", "")):
        raise WeightsError(
            f"{folder} has an image tower for pictures of differing sizes (NaFlex), which is not supported.\n"
            "Take a model of the same family with one size, such as openclip/ViT-B-16-SigLIP2."
        )
    return Architecture(f"local-dir:{folder}", config, folder=folder)


def _check_within(folder: Path, config: Mapping[str, Any]) -> None:
    """Whether a folder's configuration stays in it: open_clip does whatever it says.

    Raises:
        WeightsError: if it asks for another folder, or sets what could run code.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    settings = text.get("tokenizer_kwargs") or {}
    strange = sorted({*settings} - _TOKENIZER_SETTINGS) if isinstance(settings, dict) else ["a value of another type"]
    places = {"timm_model_name": vision.get("timm_model_name")}
    if not (folder / TEXT_FOLDER).is_dir():
        places["hf_model_name"] = text.get("hf_model_name")
    asked = [f"tokenizer_kwargs with {quote(name)}" for name in strange]
    asked += [
        f"{key} {quote(name)}"
        for key, name in places.items()
        if name is not None and (not isinstance(name, str) or ":" in name or is_path(name))
    ]
    if asked:
        raise WeightsError(
            f"{folder / CONFIG} is refused: it asks for {asked[0]}, by which a folder could run code of its own, or "
            "read other files.\nTake it out if you know what it is for; finetuner-openclip opens the model without."
        )
