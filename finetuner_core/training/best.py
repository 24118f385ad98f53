"""Evaluation in the middle of training: the best weights are kept, and training ends where nothing gets better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from finetuner_core.errors import FolderError
from finetuner_core.training.tensors import write_tensors

Measured = TypeVar("Measured")


class Check(NamedTuple):
    """One evaluation.

    Args:
        step: after how many steps.
        value: of the metric that decides.
        is_best: whether none before was better.
    """

    step: int
    value: float
    is_best: bool


class BestWeights(Generic[Measured]):
    """Measures a model every few steps, and keeps the weights that measured best, on the disk.

    Args:
        modules: what is trained: its weights are kept, and those of nothing that stands still.
        measure: measures the model as it is.
        value: of a measurement, the number that decides; the higher the better.
        folder: where the weights are kept, an empty one.
        every: how many steps apart; the last step of training is measured as well.
        patience: after how many measurements without a better one training ends; `None` for never.
        on_check: told of each evaluation, and what it measured.

    Attributes:
        checks: the evaluations so far.
        best: what the best of them measured; `None` where that was before the process that goes on with the run.
        file: where the weights are kept. It is not changed but replaced, so that a link to it stays as it was.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        measure: Callable[[], Measured],
        value: Callable[[Measured], float],
        folder: Path,
        *,
        every: int,
        patience: int | None = None,
        on_check: Callable[[Check, Measured], None] = lambda check, measured: None,
    ) -> None:
        self.checks: list[Check] = []
        self.best: Measured | None = None
        self._modules, self._measure, self._value = modules, measure, value
        self._every, self._patience, self._on_check = every, patience, on_check
        self.file = folder / "best.safetensors"

    def after_step(self, step: int, steps: int) -> bool:
        """Measures if it is time to.

        Args:
            step: how many were done.
            steps: how many there are to be.

        Returns:
            Whether training is to end.
        """
        if step % self._every and step != steps:
            return False
        measured = self._measure()
        value = self._value(measured)
        best = max((check.value for check in self.checks), default=float("-inf"))
        check = Check(step, value, value > best or not self.checks)
        self.checks.append(check)
        if check.is_best:
            self.best = measured
            self._keep()
        self._on_check(check, measured)
        since = next(number for number, check in enumerate(reversed(self.checks)) if check.is_best)
        return self._patience is not None and since >= self._patience

    def restore(self) -> Check:
        """Gives the modules the weights of the best evaluation, and tells which it was."""
        state = load_file(self.file)
        with torch.no_grad():
            for name, tensor in self._tensors():
                tensor.copy_(state[name])
        return next(check for check in reversed(self.checks) if check.is_best)

    def _keep(self) -> None:
        scratch = self.file.with_name(f".{self.file.name}.new")
        try:
            write_tensors(scratch, dict(self._tensors()))
            scratch.replace(self.file)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise FolderError(
                f"The best weights cannot be kept in {self.file.parent}: {error.strerror or error}.\n"
                "Make room, and start the same command again."
            ) from error

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        """Whatever training changes: trained parameters, and buffers such as running statistics."""
        return [
            (f"{owner}.{name}", tensor)
            for owner, module in self._modules.items()
            for name, tensor in (
                *((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad),
                *module.named_buffers(),
            )
        ]
