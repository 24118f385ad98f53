"""What a person sees while a model is trained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from finetuner_core.training.loop import Epoch

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Lines on stderr, and a bar with loss and rate within each epoch where a terminal shows it.

    Args:
        quiet: whether to show nothing at all.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: tqdm[None] | None = None
        self._steps = self._epochs = 0

    def line(self, label: str, text: str) -> None:
        """One line that says one thing."""
        if not self.quiet:
            print(f"{label:<9} {text}", file=sys.stderr)

    def start(self, epochs: int, steps: int) -> None:
        """Training starts, with so many steps an epoch."""
        self._epochs, self._steps = epochs, steps

    def step(self, loss: float, items: int) -> None:
        """A step of so many items was done."""
        if self.quiet:
            return
        if self._bar is None:
            from tqdm import tqdm

            # disable=None: no bar where the output is a file, in which it would fill thousands of lines.
            self._bar = tqdm(total=self._steps, unit="step", leave=False, disable=None)
        self._bar.set_postfix_str(f"loss {loss:.4f}, {items} items", refresh=False)
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
