"""What the plugin lists. Importing this imports neither torch nor open_clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import BackboneInfo, Modality, hookimpl
from finetuner_openclip.rows import ROWS

if TYPE_CHECKING:
    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    return ROWS


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    from finetuner_openclip.backbone import find

    return find(name)


@hookimpl
def find_backbone_names(pattern: str) -> Iterable[str]:
    from finetuner_openclip.architectures import names

    return names(pattern)


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool) -> LoadedBackbone:
    from finetuner_openclip.backbone import load

    return load(info, pretrained)


@hookimpl
def strip_head(info: BackboneInfo, loaded: LoadedBackbone) -> Mapping[Modality, FeatureExtractor]:
    from finetuner_openclip.towers import strip

    return strip(info, loaded)
