"""What the plugin lists. Importing this imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import BackboneInfo, Modality, OptionValue, hookimpl
from finetuner_hf.families import family_of
from finetuner_hf.rows import ROWS

if TYPE_CHECKING:
    from finetuner_core.interfaces import CrossEncoder, FeatureExtractor, LoadedBackbone


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
    return family_of(info.task).load(info, pretrained, options)


@hookimpl
def strip_head(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    return family_of(info.task).strip(info, loaded, pooling)


@hookimpl
def load_cross_encoder(name: str) -> CrossEncoder | None:
    from finetuner_hf.reranker import find_cross_encoder

    return find_cross_encoder(name)
