"""Loads a network of timm, with the preprocessing that its weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from finetuner_core.catalogue.names import is_path
from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.interfaces import ForeignUse, LoadedBackbone
from finetuner_core.plugin import BackboneInfo, OptionError, OptionValue, WeightsError
from finetuner_timm.library import timm
from finetuner_timm.memory import memory_format_of

_CODE = """\
import timm
from PIL import Image

network = timm.create_model("local-dir:{folder}", pretrained=True).eval()  # from the Hub: "hf-hub:{model}"
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
output = network(transform(Image.open("photo.jpg").convert("RGB")).unsqueeze(0))"""


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The network of a row, its head included."""
    size = options.get("image_size")
    requested = {} if size is None else {"img_size": size}
    network = _create(info, pretrained, requested).eval()
    network = network.to(memory_format=memory_format_of(network))
    config = timm.data.resolve_data_config(requested, model=network)
    if requested:
        _check_size(info, network, config["input_size"])

    def save(network: nn.Module, target: Path) -> None:
        timm.models._hub.save_config_for_hf(network, str(target / "config.json"), data_config=config)
        # Copies, since a module may stand in two places and safetensors writes no memory twice.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    def publish(network: nn.Module, pooling: str, projection: nn.Linear | None, folder: Path) -> ForeignUse:
        return ForeignUse("timm", "image-feature-extraction", _CODE, _rest(pooling, projection), tags=("timm",))

    return LoadedBackbone(network, {"image": preprocess(config)}, save, publish=publish)


def _rest(pooling: str, projection: nn.Linear | None) -> str:
    """What of an embedding timm does not compute."""
    left = [] if pooling == "native" else [f"the pooling {pooling}"]
    left += [] if projection is None else ["the projection in `head.safetensors`"]
    if not left:
        return "Scaled to length 1, these are the model's vectors."
    return f"timm computes the network; {' and '.join(left)} and scaling to length 1 follow in Finetuner."


def preprocess(config: Mapping[str, Any]) -> PixelPreprocess:
    """What timm does with an image in evaluation, in the two halves that Finetuner asks for.

    Args:
        config: what `timm.data.resolve_data_config` gave.
    """
    _, height, width = config["input_size"]
    steps = timm.data.create_transform(**config, is_training=False).transforms
    pictures = steps[: [type(step).__name__ for step in steps].index("MaybeToTensor")]
    return PixelPreprocess.of_transforms(pictures, image_size=(height, width), mean=config["mean"], std=config["std"])


def _create(info: BackboneInfo, pretrained: bool, requested: Mapping[str, object]) -> nn.Module:
    name = f"local-dir:{info.name}" if is_path(info.name) else info.name
    # A transformer is built for one size of image and has to be told another; for a convolution any will do.
    told = timm.models.resolve_model_input_args(name, requested) if requested else {"model_name": name}
    try:
        network: nn.Module = timm.create_model(pretrained=pretrained, **told)
    except (AssertionError, ValueError) as error:
        if not requested:
            raise
        raise _no_size(info, requested["img_size"], error) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _no_weights(info, error) from error
    return network


def _check_size(info: BackboneInfo, network: nn.Module, input_size: tuple[int, ...]) -> None:
    """Sees one black image of a size that was asked for: windows and patches have to fit into it, each its own way."""
    try:
        with torch.no_grad():
            network(torch.zeros(1, *input_size))
    except Exception as error:  # each network has its own way to say so
        raise _no_size(info, input_size[-1], error) from error


def _no_size(info: BackboneInfo, size: object, error: Exception) -> OptionError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return OptionError(
        f"{info.full_name} cannot see images of image_size={size}: {reason}\n"
        "A multiple of 32, or of its own size, is most likely to fit."
    )


def _no_weights(info: BackboneInfo, error: Exception) -> WeightsError:
    without = "start from random weights: --from-scratch (pretrained=False)"
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if is_path(info.name):
        return WeightsError(f"The weights in {info.name} cannot be loaded: {reason}\nMend the folder, or {without}")
    if "No pretrained weights" in reason:
        return WeightsError(f"timm has no pretrained weights for {info.name}.\nS{without[1:]}")
    message = f"The weights of {info.full_name} are neither in the local cache nor could they be fetched: {reason}"
    repository = info.source.removeprefix("https://huggingface.co/")
    return WeightsError(f"{message}\nWith a network, run: hf download {repository}   Without, {without}")
