"""Loads a network of timm, with the preprocessing that its weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors.torch import save_file

from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.interfaces import LoadedBackbone
from finetuner_core.plugin import BackboneInfo, OptionValue, WeightsError
from finetuner_timm.architectures import is_folder
from finetuner_timm.library import timm


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The network of a row, its head included."""
    folder = Path(info.name)
    name = f"local-dir:{folder}" if is_folder(folder) else info.name
    size = options.get("image_size")
    try:
        # A network of a fixed size has to be told of another; to one that is only convolved it is all the same.
        fixed = size is not None and _pretrained_config(name).get("fixed_input_size")
        network = timm.create_model(name, pretrained=pretrained, **({"img_size": size} if fixed else {}))
    except (OSError, RuntimeError) as error:
        raise _unreachable(info, error) from error
    # Convolutions are faster on a CPU and on a GPU alike where a pixel's channels lie side by side.
    network = network.to(memory_format=torch.channels_last)
    config = timm.data.resolve_data_config({"img_size": size} if size else {}, model=network)

    def save(target: Path) -> None:
        timm.models._hub.save_config_for_hf(network, str(target / "config.json"), data_config=config)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    return LoadedBackbone(network, {"image": preprocess(config)}, save)


def preprocess(config: Mapping[str, object]) -> PixelPreprocess:
    """What timm does with an image in evaluation, in the two halves that Finetuner asks for.

    Args:
        config: what `timm.data.resolve_data_config` gave.
    """
    *_, height, width = config["input_size"]  # type: ignore[misc]
    steps = timm.data.create_transform(**config, is_training=False).transforms
    # What works on the picture comes before the conversion to a tensor; of that the plain crop is left to the batch.
    names = [type(step).__name__ for step in steps]
    pictures = steps[: names.index("MaybeToTensor")]
    if names[len(pictures) - 1] == "CenterCrop":
        pictures = pictures[:-1]

    def resize(image: Image) -> Image:
        for step in pictures:
            image = step(image)
        return image

    return PixelPreprocess(
        resize=resize,
        image_size=(height, width),
        mean=config["mean"],  # type: ignore[arg-type]
        std=config["std"],  # type: ignore[arg-type]
        offset=lambda excess: round(excess / 2),
    )


def _pretrained_config(name: str) -> Mapping[str, object]:
    with torch.device("meta"):
        config: Mapping[str, object] = timm.create_model(name).pretrained_cfg
    return config


def _unreachable(info: BackboneInfo, error: Exception) -> WeightsError:
    if isinstance(error, RuntimeError) and "No pretrained weights" in str(error):
        return WeightsError(f"timm has no pretrained weights for {info.name}.\nStart from random ones: --from-scratch")
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return WeightsError(
        f"The weights of {info.full_name} are neither in the local cache nor could they be fetched ({first.strip()})\n"
        f"With a network, run: hf download {info.source.removeprefix('https://huggingface.co/')}  or start without: "
        "--from-scratch (pretrained=False)"
    )
