"""CLIP: a tower for texts and one for images, with a projection each into the space that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL.Image import Image, Resampling
from torch import nn
from transformers import AutoModel, CLIPModel, PreTrainedConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Preprocess, Stage
from finetuner_core.plugin import BackboneInfo, Modality, OptionValue
from finetuner_hf.hub import LOADING_ERRORS, read_config, why_not_loaded
from finetuner_hf.rows import OPTIONS
from finetuner_hf.stages import transformer_stages
from finetuner_hf.tokens import TextPreprocess, max_length, read_tokenizer


def accepts(config: PreTrainedConfig) -> bool:
    """Whether it is a CLIP."""
    return config.model_type == "clip"


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of a CLIP."""
    return BackboneInfo(
        name, "text-to-image", config.projection_dim, "transformer", "CLIP", options=OPTIONS, source=source
    )


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """Both towers, with tokenizer and image processor."""
    config = read_config(info.name)
    missing: Iterable[str] = ()
    try:
        tokenizer = read_tokenizer(info.name)
        processor = CLIPImageProcessorPil.from_pretrained(info.name)
        if pretrained:
            network, report = AutoModel.from_pretrained(info.name, dtype=torch.float32, output_loading_info=True)
            missing = report["missing_keys"]
        else:
            network = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except LOADING_ERRORS as error:
        raise why_not_loaded(info.name, error) from error
    limit = max_length(tokenizer, config.text_config.max_position_embeddings, options.get("max_length"))
    texts = TextPreprocess(tokenizer, limit)

    def save(network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CLIPModel)
        network.save_pretrained(folder)
        texts.save(folder)
        processor.save_pretrained(folder)

    feeding: Mapping[Modality, Preprocess] = {"text": texts, "image": image_preprocess(processor)}
    return LoadedBackbone(network, feeding, save, tuple(sorted(missing)))


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """Both towers with their projections. CLIP's temperature belongs to its loss and stays behind."""
    network = loaded.network
    assert isinstance(network, CLIPModel)
    return {
        "text": TextTower(network.text_model, network.text_projection),
        "image": ImageTower(network.vision_model, network.visual_projection),
    }


class _Tower(FeatureExtractor):
    def __init__(self, tower: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.dim = projection.out_features

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, the last norm, the projection."""
        return [*transformer_stages(self.tower), Stage("projection", (self.projection,))]


class TextTower(_Tower):
    """Texts into the shared space: the feature at the end-of-text token, projected."""

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        pooled = self.tower(**batch).pooler_output
        return Features.of_vectors(self.projection(pooled))


class ImageTower(_Tower):
    """Images into the shared space: the feature of the class token, projected."""

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        pooled = self.tower(pixel_values=batch["pixels"]).pooler_output
        return Features.of_vectors(self.projection(pooled))


def image_preprocess(processor: CLIPImageProcessorPil) -> PixelPreprocess:
    """What a CLIP image processor does, in the two halves that Finetuner asks for."""
    crop = processor.crop_size if processor.do_center_crop else processor.size
    return PixelPreprocess(
        resize=_Resize(dict(processor.size), Resampling(processor.resample)),
        image_size=(crop["height"], crop["width"]),
        mean=processor.image_mean,
        std=processor.image_std,
        offset=_half,
    )


class _Resize:
    """Resizes as a CLIP image processor does; a class, so that it can be pickled."""

    def __init__(self, size: Mapping[str, int], resample: Resampling) -> None:
        self.size, self.resample = size, resample

    def __call__(self, image: Image) -> Image:
        edge = self.size.get("shortest_edge")
        if edge is None:
            return image.resize((self.size["width"], self.size["height"]), self.resample)
        # The longer side is rounded down, as the processor does.
        width, height = (edge if side == min(image.size) else int(edge * side / min(image.size)) for side in image.size)
        return image.resize((width, height), self.resample)


def _half(excess: int) -> int:
    """Where the processor's crop begins: at half of what is too much, rounded down."""
    return excess // 2
