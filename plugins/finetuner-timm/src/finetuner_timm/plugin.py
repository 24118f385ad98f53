"""What the plugin lists. Importing this imports neither torch nor timm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import BackboneInfo, Modality, OptionValue, hookimpl
from finetuner_timm.rows import ROWS

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return ROWS


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    from finetuner_timm.architectures import find

    return find(name)


@hookimpl
def find_backbone_names(pattern: str) -> Iterable[str]:
    from finetuner_timm.architectures import names

    return names(pattern)


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    from finetuner_timm.backbone import load

    return load(info, pretrained, options)


@hookimpl
def strip_head(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    from finetuner_core.data.pixels import PixelPreprocess
    from finetuner_timm.extractors import strip

    pixels = loaded.preprocess["image"]
    assert isinstance(pixels, PixelPreprocess)
    return {"image": strip(loaded.network, pooling, pixels.image_size, name=info.full_name)}
