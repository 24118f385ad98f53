"""What the plugin lists. Importing this imports neither torch nor pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import LossInfo, OptionValue, hookimpl
from finetuner_metric_learning.rows import LOSSES

if TYPE_CHECKING:
    from torch import nn


@hookimpl
def list_losses() -> Iterable[LossInfo]:
    return [loss.info for loss in LOSSES]


@hookimpl
def build_loss(info: LossInfo, dim: int, options: Mapping[str, OptionValue]) -> nn.Module:
    from finetuner_metric_learning.build import build

    return build(info.name, dim, options)
