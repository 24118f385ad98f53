"""What a person sees while a model is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.report import describe
from finetuner_core.data.sources import Sources
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.best import Check
from finetuner_core.training.loop import Plan
from finetuner_core.training.state import Epoch
from finetuner_core.values import OptionValue, printable

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Lines on stderr, and a bar with loss and rate within each epoch where a terminal shows it.

    Args:
        quiet: whether to show nothing at all.
        log: gets all that is said, also where nothing is shown.
    """

    def __init__(self, *, quiet: bool, log: Callable[[str], None] | None = None) -> None:
        self.quiet = quiet
        self._log = log or (lambda text: None)
        self._first = 0  # steps of the epoch that were done in an earlier process
        self._bar: tqdm[NoReturn] | None = None
        self._steps = self._epochs = self._items = 0

    def line(self, label: str, text: str) -> None:
        """One line that says one thing."""
        text = printable(f"{label:<9} {text}")
        self._log(text)
        if not self.quiet:
            print(text, file=sys.stderr)

    def result(self, text: str) -> None:
        """What the run was for, on stdout."""
        self._log(text)
        if not self.quiet:
            print(text)

    def data(self, data: Sources, batches: Sequence[ClassBatches | PairBatches]) -> None:
        """What was recognised in the data."""
        for word, text in describe(data):
            self.line(word, text)
        for own in batches:
            if isinstance(own, ClassBatches):
                if own.left_out:
                    self.line("Left out", f"{own.left_out:,} labels that stand on one item only, from training")
            elif own.unavoidable:
                self.line(
                    "Masked",
                    f"{own.unavoidable:,} rows share a batch with the same item, which does not count as a negative",
                )

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
        losses: Sequence[tuple[str, Mapping[str, OptionValue]]],
        device: torch.device,
    ) -> None:
        """How it is trained."""
        self._epochs, self._steps = plan.epochs, steps
        named: list[str] = []
        for name, options in losses:
            settings = ", ".join(f"{option} {value}" for option, value in options.items() if value is not None)
            named.append(f"{name} loss{f' ({settings})' if settings else ''}")
        self.line(
            "Training",
            f"{' and '.join(dict.fromkeys(named))}, {plan.epochs} epochs of {steps} steps, batch {batch_size}, "
            f"learning rate {plan.learning_rate:g}, {str(plan.dtype).removeprefix('torch.')} on {device}",
        )
        if plan.mirror is not None:
            self.line("Images", f"cropped{' and mirrored' if plan.mirror else ''} at random (--augment none: not)")

    def goes_on(self, position: Mapping[str, Any]) -> None:
        """The run goes on where a checkpoint was written."""
        self._first = position["step"]
        self.line("Resumed", f"after step {position['done']:,}, in epoch {position['epoch']}")

    def filling(self, done: int, items: int) -> None:
        """So many items of what is frozen were computed."""
        if self.quiet:
            return
        if self._bar is None:
            self._bar = self._new_bar(items, "item")
        self._bar.update(done - self._bar.n)
        if done == items:
            self._close()

    def cached(self, sentences: Sequence[str]) -> None:
        """What was kept of it."""
        for sentence in sentences:
            self.line("Frozen", sentence)

    def step(self, loss: float, items: int) -> None:
        """A step of so many items was done."""
        if self.quiet:
            return
        if self._bar is None:
            self._bar = self._new_bar(self._steps, "step", self._first)
            self._items = self._first = 0
        self._items += items
        rate = self._items / max(self._bar.format_dict["elapsed"], 1e-9)
        self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} items/s", refresh=False)
        self._bar.update()

    def epoch(self, epoch: Epoch) -> None:
        """An epoch was done."""
        self._close()
        self.line(
            "Epoch",
            f"{epoch['epoch']}/{self._epochs}  loss {epoch['loss']:.4f}  {epoch['items_per_second']:,.0f} items/s  "
            f"{epoch['seconds']:.1f} s",
        )

    def check(self, check: Check) -> None:
        """The model was evaluated in the middle of training."""
        if self._bar is not None:
            self._bar.clear()
        self.line("Step", f"{check.step:,}  {check.value:.4f}{'  best' if check.is_best else ''}")

    def kept(self, check: Check) -> None:
        """The weights of an evaluation are those that are kept."""
        self.line("Kept", f"the weights of step {check.step:,}, at {check.value:.4f} the best")

    def _new_bar(self, total: int, unit: str, first: int = 0) -> tqdm[NoReturn]:
        from tqdm import tqdm

        # disable=None: no bar where the output is a file, in which it would fill thousands of lines.
        return tqdm(total=total, initial=first, unit=unit, leave=False, disable=None)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
