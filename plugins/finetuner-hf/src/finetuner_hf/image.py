"""Image models."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedConfig

from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone
from finetuner_core.plugin import BackboneInfo, Modality, OptionValue


def accepts(config: PreTrainedConfig) -> bool:
    """Whether it is an image model that is opened."""
    return False


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of an image model."""
    raise NotImplementedError


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The network of a row."""
    raise NotImplementedError


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """The network without its head."""
    raise NotImplementedError
