"""What training learns from and is measured on, read and checked before there is a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.findings import check_evaluable
from finetuner_core.data.sources import Sources
from finetuner_core.training.choices import choose_batches, choose_loss, choose_metrics
from finetuner_core.training.settings import Settings
from finetuner_core.values import OptionValue, Side


@dataclass(frozen=True)
class Material:
    """Data with all that follows from it and the settings alone.

    Args:
        data: what was read.
        metrics: for each evaluation data the metrics that were asked for; `None` for the usual ones.
        losses: for each part its loss: a name, and a value for each of its options.
        batches: for each part its batches.
    """

    data: Sources
    metrics: Mapping[str, Sequence[str] | None]
    losses: Sequence[tuple[str, Mapping[str, OptionValue]]]
    batches: Sequence[ClassBatches | PairBatches]

    @classmethod
    def of(
        cls,
        data: Sources,
        settings: Settings,
        *,
        metrics: Sequence[str] | None,
        loss: str | None,
        loss_options: Mapping[str, object] | None,
        two_towers: bool,
    ) -> Material:
        """Decides what the data leave open; the parameters are those of `fit`.

        Raises:
            FinetunerError: if there is nothing to find in evaluation data, or if loss or metrics do not go with it.
        """
        for held_out in data.evals.values():
            check_evaluable(held_out)
        return cls(
            data,
            choose_metrics(data, metrics),
            [choose_loss(part, loss, loss_options, two_towers=two_towers) for part in data.parts],
            [choose_batches(part.train, settings) for part in data.parts],
        )

    @property
    def weights(self) -> list[float] | None:
        """For each part its share of the steps, where any was given."""
        return [part.weight for part in self.data.parts if part.weight is not None] or None

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return sum(own.per_epoch for own in self.batches)

    def columns(self) -> Iterator[tuple[Column, Side | None]]:
        """Every column, with what its items are."""
        for own in (*(part.train for part in self.data.parts), *self.data.evals.values()):
            if isinstance(own, Dataset):
                yield from zip(own.columns, own.sides, strict=True)
            else:
                yield from ((own.queries, "query"), (own.corpus, "document"))
