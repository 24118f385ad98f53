"""Builds a network of open_clip, and says of what it was built."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import WeightsError
from finetuner_openclip.architectures import TEXT_FOLDER, Architecture
from finetuner_openclip.library import need_transformers, open_clip, unheard


def create(architecture: Architecture, pretrained: bool, device: str = "cpu") -> nn.Module:
    """The network, always in the form in which each tower is a module of its own: `visual` and `text`.

    Args:
        architecture: what is meant.
        pretrained: whether to load its weights; where not, nothing is fetched but what describes it.
        device: where it is built; "meta" costs nothing.
    """
    settings: dict[str, Any] = {"quick_gelu": quick_gelu(architecture)}
    if "hf_model_name" in architecture.config["text_cfg"]:
        described = str(_text_folder(architecture))
        settings["text_cfg"] = {
            **architecture.config["text_cfg"],
            "hf_model_name": described,
            "hf_model_pretrained": False,
        }
    with unheard(), torch.device(device):
        network: nn.Module = open_clip.create_model(
            architecture.name,
            pretrained=architecture.tag if pretrained and not architecture.folder else None,
            load_weights=pretrained,
            require_pretrained=pretrained,
            pretrained_text=False,
            force_custom_text=True,
            device=device,
            # Said here too, so that a network with random weights is fed as the one with these would be.
            force_preprocess_cfg=dict(architecture.weights),
            **settings,
        )
    return network


def quick_gelu(architecture: Architecture) -> bool:
    """Whether its activation is the quick approximation of GELU: where the architecture, or the weights, say so.

    Weights that were trained with it are listed for architectures without it too, where open_clip builds the wrong
    network and warns.
    """
    return bool(architecture.config.get("quick_gelu") or architecture.weights.get("quick_gelu"))


def measure(architecture: Architecture) -> tuple[int, int, str]:
    """The width of the vectors, how many parameters the two towers hold, and what kind the image tower is."""
    # On the meta device a network costs nothing and still tells what it emits.
    network = create(architecture, pretrained=False, device="meta").eval()
    emitted = network.visual(torch.empty(1, 3, *image_size(network), device="meta"))  # type: ignore[operator]
    vectors: Tensor = emitted[0] if isinstance(emitted, tuple) else emitted
    visual = network.get_submodule("visual")
    parameters = sum(p.numel() for name in ("visual", "text") for p in network.get_submodule(name).parameters())
    return vectors.shape[1], parameters, type(getattr(visual, "trunk", visual)).__name__


def image_size(network: nn.Module) -> tuple[int, int]:
    """Height and width of what the image tower sees."""
    size: Any = network.get_submodule("visual").image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def config_of_towers(architecture: Architecture) -> dict[str, Any]:
    """What open_clip builds the two towers from, and nothing else: a captioning model (CoCa) without its decoder."""
    config = copy.deepcopy(dict(architecture.config))
    for decoder in ("multimodal_cfg", "pad_id"):
        config.pop(decoder, None)
    for tower in ("vision_cfg", "text_cfg"):
        config[tower].pop("output_tokens", None)
    return config | {"custom_text": True, "quick_gelu": quick_gelu(architecture)}


def _text_folder(architecture: Architecture) -> Path:
    """Where the configuration of a text tower of transformers is."""
    need_transformers(architecture.name, "text tower")
    name = str(architecture.config["text_cfg"]["hf_model_name"])
    if architecture.folder and (architecture.folder / TEXT_FOLDER).is_dir():
        return architecture.folder / TEXT_FOLDER
    return Path(name) if is_path(name) else fetch(name, "config.json").parent


def fetch(repository: str, file: str) -> Path:
    """A file of the Hub. What the disk holds is not asked for.

    Raises:
        WeightsError: if it is neither in the cache nor can be had.
    """
    try:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(hf_hub_download(repository, file))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{file} of {repository} is neither in the local cache nor could it be fetched: {reason}\n"
            f"With a network, run: hf download {repository} {file}"
        ) from error


def preprocess_config(network: nn.Module) -> Mapping[str, Any]:
    """How its images are prepared, in open_clip's terms."""
    config: Any = network.get_submodule("visual").preprocess_cfg
    return dict(config)
