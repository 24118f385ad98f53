"""What the plugin lists. Importing this imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import BackboneInfo, Modality, Option, OptionValue, hookimpl

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone

OPTIONS = (
    Option("max_length", "int", None, "Tokens of a text that are read, the rest cut off; else all it can.", minimum=3),
)
TOKEN_POOLINGS = ("mean", "cls", "max")

ROWS = (
    BackboneInfo(
        name="openai/clip-vit-base-patch32",
        task="text-to-image",
        output_dim=512,
        architecture="transformer",
        description="Pretrained on text image pairs by OpenAI",
        options=OPTIONS,
        licence="MIT",
        source="https://huggingface.co/openai/clip-vit-base-patch32",
        parameters=151_277_312,
    ),
    BackboneInfo(
        name="bert-base-cased",
        task="text-to-text",
        output_dim=768,
        architecture="transformer",
        description="Pretrained on BookCorpus and English Wikipedia",
        poolings=TOKEN_POOLINGS,
        options=OPTIONS,
        licence="Apache-2.0",
        source="https://huggingface.co/bert-base-cased",
        parameters=107_719_680,
    ),
    BackboneInfo(
        name="sentence-transformers/msmarco-distilbert-base-v3",
        task="text-to-text",
        output_dim=768,
        architecture="transformer",
        description="Pretrained on Bert, fine-tuned on MS Marco",
        poolings=("native", *TOKEN_POOLINGS),
        options=OPTIONS,
        licence="Apache-2.0",
        source="https://huggingface.co/sentence-transformers/msmarco-distilbert-base-v3",
        parameters=66_362_880,
    ),
)


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return ROWS


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    from finetuner_hf.hub import find

    return find(name)


@hookimpl
def find_backbone_names(pattern: str) -> Iterable[str]:
    from finetuner_hf.hub import cached_names

    return cached_names(pattern)


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    if info.task == "text-to-image":
        from finetuner_hf import clip

        return clip.load(info, pretrained, options)
    from finetuner_hf import text

    return text.load(info, pretrained, options)


@hookimpl
def strip_head(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    if info.task == "text-to-image":
        from finetuner_hf import clip

        return clip.strip(loaded)
    from finetuner_hf import text

    return {"text": text.strip(loaded, pooling)}
