"""Which model is to be trained: what can be told of it without loading it, and then the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.errors import OptionError
from finetuner_core.modeling import lora
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.freezing import batch_statistics, freeze
from finetuner_core.training.material import Material
from finetuner_core.training.settings import Settings
from finetuner_core.values import RESERVED_OPTIONS, BackboneInfo, OptionValue, resolve_options


@dataclass(frozen=True)
class Wanted:
    """A model as `fit` is asked for it; the parameters are those of `fit`.

    Raises:
        UnknownNameError: if nobody knows the model.
        OptionError: if what was asked for does not go together.
    """

    model: EmbeddingModel | str | Path
    pretrained: bool
    pooling: str | None
    pooling_options: Mapping[str, object] | None
    output_dim: int | None
    text_model: str | Path | None
    model_options: Mapping[str, object] | None
    lora: int | None
    lora_options: Mapping[str, object] | None
    adapter: bool

    def __post_init__(self) -> None:
        self.rows()
        if isinstance(self.model, EmbeddingModel):
            for name in ("pooling", "pooling_options", "output_dim", "text_model", "model_options"):
                if getattr(self, name) is not None:
                    raise OptionError(f"{name} cannot be set for a model that is already built; build it with {name}.")
        for name in self.model_options or {}:
            if name in RESERVED_OPTIONS:
                raise OptionError(
                    f"{name} is not an option of the backbone; give it as {name}=... (--{name.replace('_', '-')})."
                )
        if self.lora_options and self.lora is None:
            raise OptionError("lora_options say how LoRA's matrices are, and lora, which asks for them, is not given.")
        self._lora_values()

    def rows(self) -> list[BackboneInfo]:
        """The row that stands for the model, and before it those of two towers where there are two."""
        if isinstance(self.model, EmbeddingModel):
            return [*(tower.info for _, tower in self.model.sided_towers()), self.model.info]
        names = [model_name(name) for name in (self.text_model, self.model) if name is not None]
        text_model = None if self.text_model is None else names[0]
        return [*map(find_row, names), find_row(names[-1], text_model)]

    def build(
        self, material: Material, settings: Settings, device: torch.device
    ) -> tuple[EmbeddingModel, list[nn.Module]]:
        """The model, on its device, and what of it stays in evaluation mode.

        Args:
            material: what it is to learn from; it has to fit.
            settings: how.
            device: where.

        Raises:
            FinetunerError: if it cannot be built, or does not go with the data or the settings.
        """
        torch.manual_seed(settings.seed)
        model = self.model if isinstance(self.model, EmbeddingModel) else self._load(material)
        for _, tower in model.sided_towers():
            if self.lora is not None:
                lora.inject(tower.encoders, self.lora, self._lora_values())
            if self.adapter:
                tower.check_adapter()
        model.to(device)
        frozen = [*freeze(model, settings.freeze), *batch_statistics(model)]
        for column, side in material.columns():
            # One item of each column tells whether they fit the model, as the width of vectors must.
            model.preprocess(column.modality, side).prepare(column.take([0]))
        return model, frozen

    def _load(self, material: Material) -> EmbeddingModel:
        given = dict(self.model_options or {})
        if any(option.name == "input_size" for option in self.rows()[-1].options):
            # A network over vectors is as wide as they are.
            first = material.data.train.columns[0].take([0])
            given.setdefault("input_size", len(cast("list[list[float]]", first)[0]))
        return build_model(
            model_name(cast("str | Path", self.model)),
            pretrained=self.pretrained,
            pooling=self.pooling,
            pooling_options=self.pooling_options,
            output_dim=self.output_dim,
            text_model=None if self.text_model is None else model_name(self.text_model),
            **given,
        )

    def _lora_values(self) -> dict[str, OptionValue]:
        return resolve_options(lora.OPTIONS, self.lora_options or {}, "lora")
