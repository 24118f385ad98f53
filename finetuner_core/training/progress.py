"""What a person sees while a model is trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import torch

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.sources import Sources
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.loop import Epoch, Plan
from finetuner_core.values import OptionValue

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Lines on stderr, and a bar with loss and rate within each epoch where a terminal shows it.

    Args:
        quiet: whether to show nothing at all.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: tqdm[NoReturn] | None = None
        self._steps = self._epochs = self._items = 0

    def line(self, label: str, text: str) -> None:
        """One line that says one thing."""
        if not self.quiet:
            print(f"{label:<9} {text}", file=sys.stderr)

    def data(self, data: Sources, batches: ClassBatches | PairBatches) -> None:
        """What was recognised in the data."""
        self.line("Data", f"{data.train.summary()}, from {data.train.source}")
        how = f" ({data.how})" if data.how else ""
        self.line("Held out", f"{data.eval.summary()}{how}, from {data.eval.source}")
        if data.skipped:
            self.line("Skipped", f"{data.skipped:,} images that cannot be read")
        if isinstance(batches, ClassBatches) and batches.left_out:
            self.line("Left out", f"{batches.left_out:,} labels that stand on one item only, from training")

    def model(self, model: EmbeddingModel) -> None:
        """What is trained."""
        sizes = [parameter.numel() for parameter in model.parameters()]
        trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
        names = " + ".join(f"{tower.info.name} ({tower.info.namespace})" for _, tower in model.sided_towers())
        self.line(
            "Model",
            f"{names}, {model.pooling} pooling, width {model.output_dim}; "
            f"{sum(trained):,} of {sum(sizes):,} parameters are trained",
        )

    def plan(
        self,
        plan: Plan,
        batch_size: int,
        steps: int,
        loss: str,
        options: Mapping[str, OptionValue],
        device: torch.device,
    ) -> None:
        """How it is trained."""
        self._epochs, self._steps = plan.epochs, steps
        settings = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
        self.line(
            "Training",
            f"{loss}{f' ({settings})' if settings else ''}, {plan.epochs} epochs of {steps} steps, batch {batch_size}, "
            f"learning rate {plan.learning_rate:g}, {str(plan.dtype).removeprefix('torch.')} on {device}",
        )
        if plan.mirror is not None:
            self.line("Images", f"cropped{' and mirrored' if plan.mirror else ''} at random (--augment none: not)")

    def step(self, loss: float, items: int) -> None:
        """A step of so many items was done."""
        if self.quiet:
            return
        if self._bar is None:
            from tqdm import tqdm

            # disable=None: no bar where the output is a file, in which it would fill thousands of lines.
            self._bar = tqdm(total=self._steps, unit="step", leave=False, disable=None)
            self._items = 0
        self._items += items
        rate = self._items / max(self._bar.format_dict["elapsed"], 1e-9)
        self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} items/s", refresh=False)
        self._bar.update()

    def epoch(self, epoch: Epoch) -> None:
        """An epoch was done."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self.line(
            "Epoch",
            f"{epoch['epoch']}/{self._epochs}  loss {epoch['loss']:.4f}  {epoch['items_per_second']:,.0f} items/s  "
            f"{epoch['seconds']:.1f} s",
        )
