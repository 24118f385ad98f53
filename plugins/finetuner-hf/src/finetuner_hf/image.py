"""Image models: vision transformers, with and without a class token, and networks that end in a feature map."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, ForeignUse, LoadedBackbone, Stage
from finetuner_core.plugin import TOKEN_POOLINGS, BackboneInfo, Modality, OptionError, OptionValue, WeightsError
from finetuner_hf.hub import read_config
from finetuner_hf.network import loading, open_network
from finetuner_hf.processors import check_image_size, image_preprocess, read_processor, set_image_size
from finetuner_hf.published import of_images
from finetuner_hf.rows import IMAGE_OPTIONS
from finetuner_hf.stages import image_stages

# How many tokens stand before the patches, registers not counted. The first is the class token.
_CLASS_TOKENS = {
    **dict.fromkeys(("vit", "vit_msn", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit"), 1),
    **dict.fromkeys(("clip_vision_model", "chinese_clip_vision_model"), 1),
    "deit": 2,
}
_PATCHES_ALONE = ("siglip_vision_model", "swin", "swinv2", "ijepa")
_MAPS = ("convnext", "convnextv2", "resnet", "regnet")
# Its tokens are the mean of the map and then the map's positions.
_MEAN_FIRST = ("dinov3_convnext",)

# Where transformers norms only what it pools itself, the norm that tokens have to go through, too.
_LAST_NORM = {
    **dict.fromkeys(("clip_vision_model", "chinese_clip_vision_model"), "post_layernorm"),
    "beit": "pooler.layernorm",
    **dict.fromkeys(("convnext", "convnextv2"), "layernorm"),
}

# A repository of one of these families may hold one of these, whose training made no vector of an image.
_DENSE_TASKS = ("Segmentation", "ObjectDetection", "DepthEstimation")


def accepts(config: PreTrainedConfig) -> bool:
    """Whether it is an image model that is opened."""
    known = (*_CLASS_TOKENS, *_PATCHES_ALONE, *_MAPS, *_MEAN_FIRST)
    architecture = (getattr(config, "architectures", None) or [""])[0]
    return config.model_type in known and not architecture.endswith(_DENSE_TASKS)


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of an image model."""
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise WeightsError(
            f"{name} sees images of {channels} channels, and those that Finetuner reads have 3: red, green and blue.\n"
            "Choose a model for colour images; grey ones are read as such."
        )
    kind = config.model_type
    own = ("native",) if kind != "ijepa" and getattr(config, "vision_use_head", True) else ()
    return BackboneInfo(
        name=name,
        task="image-to-image",
        output_dim=_width(config),
        architecture="CNN" if kind in (*_MAPS, *_MEAN_FIRST) else "transformer",
        description=kind,
        poolings=(*own, *TOKEN_POOLINGS, *(("cls",) if kind in _CLASS_TOKENS else ())),
        options=IMAGE_OPTIONS,
        source=source,
    )


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The network of a row, with its image processor."""
    config = read_config(info.name)
    with loading(info.name):
        processor = read_processor(info.name)
    network, missing = open_network(info.name, config, pretrained=pretrained)
    # Most checkpoints of ViT were trained without the layer that transformers puts behind the class token: it would be
    # random. Their vector is the class token after the last norm.
    if _has_dense_pooler(network) and (not pretrained or "pooler.dense.weight" in missing):
        network.pooler = None  # type: ignore[assignment]
    size = options.get("image_size")
    if isinstance(size, int):
        check_image_size(info.name, size, config)
        set_image_size(processor, size)
    images = image_preprocess(processor, info.name)
    if size is not None:
        _see_one(info, network, images.image_size)

    def save(network: nn.Module, folder: Path) -> None:
        assert isinstance(network, PreTrainedModel)
        network.save_pretrained(folder)
        # The size of what it sees stands here: that of the configuration is what its positions were trained for.
        processor.save_pretrained(folder)

    def publish(network: nn.Module, pooling: str, projection: nn.Linear | None, folder: Path) -> ForeignUse:
        return of_images(pooling, projection)

    return LoadedBackbone(network, {"image": images}, save, missing, publish=publish)


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """The network without what only its training or another pooling uses."""
    network = loaded.network
    assert isinstance(network, PreTrainedModel)
    drop_mask_token(network)
    if pooling == "native":
        return {"image": PooledExtractor(network)}
    if _has_dense_pooler(network):
        network.pooler = None  # type: ignore[assignment]
    if getattr(network, "use_head", False):
        network.use_head = network.config.vision_use_head = False  # type: ignore[assignment]
        del network.head
    return {"image": TokenExtractor(network, class_token=pooling == "cls")}


def drop_mask_token(network: PreTrainedModel) -> None:
    """Takes the token away that stood for hidden patches in pretraining."""
    embeddings = getattr(network, "embeddings", None)
    if isinstance(embeddings, nn.Module) and getattr(embeddings, "mask_token", None) is not None:
        embeddings.mask_token = None  # type: ignore[assignment]
        if hasattr(network.config, "use_mask_token"):
            network.config.use_mask_token = False


def see(network: nn.Module, pixels: Tensor) -> Any:
    """What a network gives for pixels (B, 3, H, W), its positions interpolated where they were trained for others."""
    config = network.config
    trained_for = getattr(config, "image_size", None)
    trained_for = [trained_for, trained_for] if isinstance(trained_for, int) else trained_for
    another = trained_for is not None and list(pixels.shape[-2:]) != list(trained_for)
    if another and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
        return network(pixel_values=pixels, interpolate_pos_encoding=True)
    return network(pixel_values=pixels)


class _Extractor(FeatureExtractor):
    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.dim = _width(network.config)

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers or groups of them, and what follows."""
        return image_stages(self.network)


class PooledExtractor(_Extractor):
    """The vector that the network's authors use: what it pools itself, else its class token after the last norm."""

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        output = see(self.network, batch["pixels"])
        pooled = getattr(output, "pooler_output", None)
        vectors: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
        return Features.of_vectors(vectors)


class TokenExtractor(_Extractor):
    """The network's features of each patch or position, after its last norm.

    Args:
        network: the network.
        class_token: whether its class token stands before them.
    """

    def __init__(self, network: PreTrainedModel, *, class_token: bool) -> None:
        super().__init__(network)
        kind, registers = network.config.model_type, getattr(network.config, "num_register_tokens", 0) or 0
        self._before = _CLASS_TOKENS[kind] + registers if kind in _CLASS_TOKENS else int(kind in _MEAN_FIRST)
        self._class_token = class_token
        self._norm = _LAST_NORM.get(kind, "")

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D), row by row."""
        tokens: Tensor = see(self.network, batch["pixels"]).last_hidden_state
        if tokens.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        if norm := self._last_norm():
            tokens = norm(tokens)
        patches = tokens[:, self._before :]
        tokens = torch.cat([tokens[:, :1], patches], 1) if self._class_token else patches
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def _last_norm(self) -> nn.Module | None:
        norm = operator.attrgetter(self._norm)(self.network) if self._norm else None
        return norm if isinstance(norm, nn.Module) else None


def _width(config: PreTrainedConfig) -> int:
    sizes = getattr(config, "hidden_sizes", None)
    width: int = sizes[-1] if sizes else config.hidden_size
    return width


def _has_dense_pooler(network: nn.Module) -> bool:
    return getattr(getattr(network, "pooler", None), "dense", None) is not None


def _see_one(info: BackboneInfo, network: nn.Module, size: tuple[int, int]) -> None:
    """Sees one black image of a size that was asked for: each network has its own way of not fitting."""
    network.train(False)
    try:
        with torch.inference_mode():
            see(network, torch.zeros(1, 3, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f'hf/{info.name} cannot see images of image_size="{size[0]}": {reason}\n'
            "A multiple of 32, or of its own size, is most likely to fit."
        ) from error
