"""Which module opens which models. Importing this imports neither torch nor transformers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, cast

from finetuner_core.plugin import BackboneInfo, Modality, OptionValue

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone


class Family(Protocol):
    """What a module offers that opens models of one task."""

    def accepts(self, config: PreTrainedConfig) -> bool:
        """Whether a model of that configuration is one that it opens."""
        ...

    def row(self, name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
        """The row of such a model.

        Raises:
            WeightsError: if it cannot be opened after all; the message says why.
        """
        ...

    def load(self, info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
        """The network as published, and how to feed it."""
        ...

    def strip(self, info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
        """The network without its head, an extractor for each modality."""
        ...


# In the order in which they are asked, so that a text model is opened without what only pictures need.
_MODULES = {"text-to-text": "text", "text-to-image": "clip", "image-to-image": "image"}


def family_of(task: str) -> Family:
    """The module that opens the rows of a task."""
    return cast("Family", importlib.import_module(f"finetuner_hf.{_MODULES[task]}"))


def families() -> Iterator[Family]:
    """Every module, each imported when it is asked for."""
    return (family_of(task) for task in _MODULES)
