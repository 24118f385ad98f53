"""Finds and loads a model of open_clip, and keeps it in open_clip's own format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from finetuner_core.interfaces import ForeignUse, LoadedBackbone, Preprocess
from finetuner_core.plugin import BackboneInfo, Modality, WeightsError
from finetuner_openclip.architectures import CONFIG, TEXT_FOLDER, Architecture, known
from finetuner_openclip.feeding import TextPreprocess, image_preprocess, read_tokenizer
from finetuner_openclip.network import config_of_towers, create, image_size, measure, preprocess_config

# What open_clip and its helpers raise where weights are not there, not whole, or not those of the architecture.
LOADING_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    SafetensorError,
    UnpicklingError,
)


_CODE = """\
import open_clip
from PIL import Image

model, preprocess = open_clip.create_model_from_pretrained("local-dir:{folder}")  # from the Hub: "hf-hub:{model}"
tokenizer = open_clip.get_tokenizer("local-dir:{folder}")
texts = model.encode_text(tokenizer(["a text"]))
images = model.encode_image(preprocess(Image.open("photo.jpg")).unsqueeze(0))"""


def find(name: str) -> BackboneInfo | None:
    """The row of an architecture, `name` or `name.tag`, or of a folder; `None` for what open_clip does not know."""
    architecture = known(name)
    if architecture is None:
        return None
    try:
        output_dim, parameters, kind = measure(architecture)
    except LOADING_ERRORS as error:
        if not architecture.folder:
            raise
        raise _why_not_loaded(architecture, error) from error
    return BackboneInfo(
        name=str(architecture.folder or name),
        task="text-to-image",
        output_dim=output_dim,
        architecture=kind,
        description=_description(architecture),
        source=architecture.source,
        parameters=parameters,
    )


def load(info: BackboneInfo, pretrained: bool) -> LoadedBackbone:
    """The network of a row, with its tokenizer and its transform of images."""
    architecture = known(info.name)
    assert architecture is not None, "a row that this plugin gave"
    if pretrained and not architecture.tag and not architecture.folder:
        raise _which_weights(architecture)
    texts = TextPreprocess(read_tokenizer(architecture))
    try:
        network = create(architecture, pretrained).eval()
    except LOADING_ERRORS as error:
        if not architecture.folder and not pretrained:
            raise
        raise _why_not_loaded(architecture, error) from error
    feeding = preprocess_config(network)

    def save(network: nn.Module, folder: Path) -> None:
        _write(folder / CONFIG, {"model_cfg": config_of_towers(architecture), "preprocess_cfg": dict(feeding)})
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
        texts.save(folder)
        described: Any = getattr(network.text, "config", None)
        if described is not None:
            described.save_pretrained(folder / TEXT_FOLDER)

    preprocess: Mapping[Modality, Preprocess] = {
        "text": texts,
        "image": image_preprocess(feeding, image_size(network)),
    }

    def publish(network: nn.Module, pooling: str, projection: nn.Linear | None, folder: Path) -> ForeignUse:
        rest = "Scaled to length 1, these are the model's vectors."
        if projection is not None:
            rest = "The projections in `head.safetensors` and scaling to length 1 follow in Finetuner."
        return ForeignUse("open_clip", "zero-shot-image-classification", _CODE, rest, tags=("clip",))

    return LoadedBackbone(network, preprocess, save, publish=publish)


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _description(architecture: Architecture) -> str:
    if architecture.folder:
        return "From a folder"
    if architecture.tag:
        return f"Pretrained weights {architecture.tag}"
    return (
        f"Pretrained weights by tag: {', '.join(architecture.tags)}" if architecture.tags else "No pretrained weights"
    )


def _which_weights(architecture: Architecture) -> WeightsError:
    name, random = architecture.name, "start from random weights: --from-scratch (pretrained=False)"
    if not architecture.tags:
        return WeightsError(f"open_clip has no pretrained weights for {name}.\nS{random[1:]}")
    return WeightsError(
        f"open_clip has more than one set of weights for {name}, and none that is meant where none is named.\n"
        f"Write openclip/{name}.TAG with one of {', '.join(architecture.tags)}; or {random}"
    )


def _why_not_loaded(architecture: Architecture, error: Exception) -> WeightsError:
    without = "start from random weights: --from-scratch (pretrained=False)"
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if architecture.folder:
        place = architecture.folder
        return WeightsError(f"The model in {place} cannot be loaded: {reason}\nMend the folder, or {without}")
    name = f"openclip/{architecture.name}" + (f".{architecture.tag}" if architecture.tag else "")
    return WeightsError(
        f"The weights of {name} are neither in the local cache nor could they be fetched: {reason}\n"
        f"With a network, run: hf download {architecture.repository}   Without, {without}"
    )
