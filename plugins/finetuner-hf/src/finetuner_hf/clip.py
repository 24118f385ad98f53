"""CLIP and its relatives: a tower for texts and one for images, which end in a space that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, ForeignUse, LoadedBackbone, Preprocess, Stage
from finetuner_core.plugin import BackboneInfo, Modality, OptionValue, WeightsError
from finetuner_hf import siglip
from finetuner_hf.hub import read_config
from finetuner_hf.image import see
from finetuner_hf.naflex import NaflexPreprocess, read_naflex_processor
from finetuner_hf.network import loading, open_network
from finetuner_hf.processors import check_image_size, image_preprocess, read_processor, set_image_size
from finetuner_hf.published import of_pairs
from finetuner_hf.rows import IMAGE_OPTIONS, OPTIONS
from finetuner_hf.stages import transformer_stages
from finetuner_hf.tokens import TextPreprocess, max_length, read_tokenizer

# Families whose towers end in a projection each.
_PROJECTED = ("clip", "metaclip_2", "chinese_clip", "altclip")

# Families whose text is the projection of its first token. The others have the tower pool it.
_FIRST_TOKEN = ("chinese_clip", "altclip")


def accepts(config: PreTrainedConfig) -> bool:
    """Whether it is a CLIP, or one of those relatives that are opened."""
    return config.model_type in (*_PROJECTED, *siglip.MODEL_TYPES)


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of a CLIP or a relative."""
    kind = config.model_type
    if kind in siglip.MODEL_TYPES and not getattr(config.vision_config, "vision_use_head", True):
        raise WeightsError(
            f"{name} is a {kind} model without the head that makes one vector of an image (vision_use_head).\n"
            "Choose a whole one, such as google/siglip-base-patch16-224."
        )
    return BackboneInfo(
        name=name,
        task="text-to-image",
        output_dim=config.projection_dim if kind in _PROJECTED else config.text_config.projection_size,
        architecture="transformer",
        description="CLIP" if kind == "clip" else kind,
        # SigLIP reads texts of one length, and SigLIP 2's variant for any shape has no size of an image.
        options={"siglip": IMAGE_OPTIONS, "siglip2": ()}.get(kind, (*OPTIONS, *IMAGE_OPTIONS)),
        source=source,
    )


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """Both towers, with tokenizer and image processor."""
    config = read_config(info.name)
    kind = config.model_type
    with loading(info.name):
        tokenizer = siglip.read_siglip_tokenizer(info.name) if kind in siglip.MODEL_TYPES else read_tokenizer(info.name)
        processor = read_naflex_processor(info.name) if kind == "siglip2" else read_processor(info.name)
    network, missing = open_network(info.name, config, pretrained=pretrained)
    texts = _texts(network, tokenizer, options.get("max_length"))
    size = options.get("image_size")
    if isinstance(size, int):
        check_image_size(info.name, size, config.vision_config)
        set_image_size(processor, size)
    images = NaflexPreprocess(processor) if kind == "siglip2" else image_preprocess(processor, info.name)

    def save(network: nn.Module, folder: Path) -> None:
        assert isinstance(network, PreTrainedModel)
        network.save_pretrained(folder)
        texts.save(folder)
        processor.save_pretrained(folder)

    feeding: Mapping[Modality, Preprocess] = {"text": texts, "image": images}

    def publish(network: nn.Module, pooling: str, projection: nn.Linear | None, folder: Path) -> ForeignUse:
        return of_pairs(projection)

    return LoadedBackbone(network, feeding, save, missing, publish=publish)


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """Both towers with their projections. The temperature (and SigLIP's bias) belong to the loss and stay behind."""
    network = loaded.network
    assert isinstance(network, PreTrainedModel)
    first = network.config.model_type in _FIRST_TOKEN
    dim = info.output_dim or 0
    texts, images = network.get_submodule("text_model"), network.get_submodule("vision_model")
    return {
        "text": TextTower(texts, getattr(network, "text_projection", None), dim, first_token=first),
        "image": ImageTower(images, getattr(network, "visual_projection", None), dim),
    }


class _Tower(FeatureExtractor):
    def __init__(self, tower: nn.Module, projection: nn.Linear | None, dim: int) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.dim = dim

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, the last norm and what pools, the projection."""
        own = [] if self.projection is None else [Stage("projection", (self.projection,))]
        return [*transformer_stages(self.tower), *own]

    def _project(self, vectors: Tensor) -> Features:
        return Features.of_vectors(vectors if self.projection is None else self.projection(vectors))


class TextTower(_Tower):
    """Texts into the shared space.

    Args:
        tower: the network for texts.
        projection: what stands behind it, `None` where it ends in the shared space itself.
        dim: width of the shared space.
        first_token: whether a text is its first token; else the tower says what it is, such as its end-of-text token.
    """

    def __init__(self, tower: nn.Module, projection: nn.Linear | None, dim: int, *, first_token: bool) -> None:
        super().__init__(tower, projection, dim)
        self._first_token = first_token

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        output = self.tower(**batch)
        return self._project(output.last_hidden_state[:, 0] if self._first_token else output.pooler_output)


class ImageTower(_Tower):
    """Images into the shared space: what the tower pools them to, projected."""

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        if len(batch) > 1:
            shapes = {name: tensor for name, tensor in batch.items() if name != "pixels"}
            return self._project(self.tower(pixel_values=batch["pixels"], **shapes).pooler_output)
        return self._project(see(self.tower, batch["pixels"]).pooler_output)


def _texts(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wanted: object) -> TextPreprocess:
    positions = network.config.text_config.max_position_embeddings
    if network.config.model_type in siglip.MODEL_TYPES:
        return siglip.FixedLengthPreprocess(tokenizer, positions)
    for name, module in network.get_submodule("text_model").named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # XLM-RoBERTa, AltCLIP's text tower, counts from behind the padding's own position.
            positions -= module.padding_idx + 1
    return TextPreprocess(tokenizer, max_length(tokenizer, positions, wanted))
