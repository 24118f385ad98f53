"""Keeps a run while it is trained: a line for each step, a checkpoint every so often, and one where it is to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetuner_core.errors import FolderError, Interrupted
from finetuner_core.training.best import BestWeights, Check
from finetuner_core.training.checkpoints import Snapshot
from finetuner_core.training.every import Every
from finetuner_core.training.run import Run
from finetuner_core.training.state import Position, TrainingState
from finetuner_core.training.stop import Stop


class Keeping:
    """What the training loop calls after each step.

    Args:
        run: where everything is written.
        every: how often a checkpoint is; there is one at the end of training in any case.
        stop: tells whether the run is to end early.
        model: SHA-256 over the weights that training starts from. Those that it does not change are in no checkpoint.
        best: the best weights so far, which belong to a checkpoint; `None` where none are kept.
        clock: seconds, from anywhere.
    """

    def __init__(
        self,
        run: Run,
        every: Every,
        stop: Stop,
        *,
        model: str,
        best: BestWeights[Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.every, self.stop, self.best = run, every, stop, best
        self._model, self._clock = model, clock
        self._last = clock()

    def restore(self, state: TrainingState) -> None:
        """Puts back what the run has come to, where it goes on.

        Raises:
            FolderError: if it is of another model.
        """
        before = self.run.before
        if before is not None:
            if before.numbers["model"] != self._model:
                raise FolderError(
                    f"The model has changed: the run in {self.run.folder} started from other weights.\n"
                    "Bring the model back that it was begun with, or begin anew with another --out."
                )
            state.restore(before.tensors, before.numbers)
            if self.best is not None:
                self._restore_best(self.best, before)
            self.run.go_on(before.numbers["lines"])
        self._last = self._clock()
        self.stop.is_training = True

    def note(self, position: Position, loss: float, items: int, seconds: float) -> None:
        """Writes the line of a step."""
        self.run.line(
            step=position.done,
            epoch=position.epoch,
            loss=loss,
            learning_rate=position.learning_rate,
            items=items,
            seconds=round(seconds, 6),
        )

    def after_step(self, state: TrainingState, steps: int) -> None:
        """Writes a checkpoint where one is due, and ends the run where that was asked for.

        Args:
            state: what there is to keep.
            steps: how many there are in all.

        Raises:
            Interrupted: if the run was asked to end.
            FolderError: if the disk is full or refuses.
        """
        position = state.position
        stops = self.stop.is_requested()
        if stops or position.is_over or position.done == steps or self._is_due(position.done):
            self._write(state)
        if stops:
            raise interrupted(self.run, self.stop, f"after step {position.done:,} of {steps:,}")

    def end(self) -> None:
        """Training is over: there is no step any more that is to be finished.

        Raises:
            Interrupted: if the run was asked to end.
        """
        self.stop.is_training = False
        if self.stop.code is not None:
            raise interrupted(self.run, self.stop, "after training")

    def _is_due(self, step: int) -> bool:
        if self.every.steps is not None:
            return step % self.every.steps == 0
        return self.every.seconds is not None and self._clock() - self._last >= self.every.seconds

    def _write(self, state: TrainingState) -> None:
        numbers: Mapping[str, Any] = {
            **state.numbers(),
            "model": self._model,
            "lines": self.run.sync(),
            "checks": [] if self.best is None else self.best.checks,
        }
        files = {} if self.best is None or not self.best.checks else {self.best.file.name: self.best.file}
        self.run.checkpoints.write(state.position.done, Snapshot(state.tensors(), numbers, files))
        self._last = self._clock()

    def _restore_best(self, best: BestWeights[Any], before: Snapshot) -> None:
        best.checks[:] = [Check(*check) for check in before.numbers["checks"]]
        for name, file in before.files.items():
            self.run.bring_back(file, best.file.with_name(name))


def interrupted(run: Run, stop: Stop, where: str) -> Interrupted:
    """What is raised where a run was asked to end."""
    if not run.checkpoints:
        return Interrupted("Stopped before there was anything to keep.", stop.code or 130, run.folder)
    return Interrupted(f"Stopped {where}. Go on with: finetuner fit --resume {run.out}", stop.code or 130, run.folder)


@contextmanager
def kept_run(out: str | Path | None, settings: Mapping[str, object], *, keep: int, stop: Stop) -> Iterator[Run | None]:
    """Within it a run is going on; where it ends early, what there is of it stays.

    Args:
        out: where its model will be saved; `None` for a run that nothing is kept of.
        settings: every argument of `fit`, as JSON holds it.
        keep: how many checkpoints are kept.
        stop: notices that it is to end.

    Raises:
        Interrupted: if it was asked to end.
        FolderError: as `Run` does.
    """
    if out is None:
        yield None
        return
    run = Run(out, settings, keep=keep)
    is_saved = False
    try:
        with stop:
            yield run
        is_saved = True
    except KeyboardInterrupt:
        if stop.code in (None, 130) and not run.checkpoints:
            raise
        raise interrupted(run, stop, "where no step is left undone") from None
    finally:
        run.close(is_saved=is_saved)
