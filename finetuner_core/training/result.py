"""What a fine-tuning gave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finetuner_core.evaluation.result import Evaluation
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.best import Check
from finetuner_core.training.state import Epoch


class Measured(NamedTuple):
    """What was measured on one data set.

    Args:
        name: of the data set.
        before: training.
        after: training.
    """

    name: str
    before: Evaluation
    after: Evaluation


@dataclass(frozen=True)
class FitResult:
    """What a fine-tuning gave.

    Args:
        model: the fine-tuned model, in evaluation mode.
        measured: what was measured before and after, for each set of evaluation data.
        history: an entry for each epoch.
        checks: the evaluations in the middle of training, where there were any.
        path: the folder that the model was saved in, or `None`.
    """

    model: EmbeddingModel
    measured: tuple[Measured, ...]
    history: list[Epoch]
    checks: list[Check]
    path: Path | None

    @property
    def before(self) -> Evaluation:
        """Metrics before training, by name (`recall@1`, `mrr`, `ndcg@10`, `map`, ...), on the first evaluation data."""
        return self.measured[0].before

    @property
    def after(self) -> Evaluation:
        """The same after training."""
        return self.measured[0].after
