"""The course of a run: measured, trained, measured once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from finetuner_core.errors import TrainingError
from finetuner_core.evaluation.evaluate import evaluate_dataset
from finetuner_core.evaluation.result import Evaluation
from finetuner_core.mining.fingerprint import of_weights
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.best import BestWeights, Check
from finetuner_core.training.choices import choose_judge
from finetuner_core.training.every import Every
from finetuner_core.training.feed import Feed, feeds_of
from finetuner_core.training.frozen.feeds import cached_feeds
from finetuner_core.training.keeping import Keeping
from finetuner_core.training.loop import DivergedError, Plan, train
from finetuner_core.training.material import Material
from finetuner_core.training.objective import Objective
from finetuner_core.training.progress import Progress
from finetuner_core.training.result import Measured
from finetuner_core.training.run import CACHE, Run
from finetuner_core.training.settings import Settings
from finetuner_core.training.state import Epoch
from finetuner_core.training.stop import Stop


@dataclass(frozen=True)
class Course:
    """All that a run needs.

    Args:
        model: on its device.
        frozen: what of it stays in evaluation mode.
        objectives: what it learns from.
        material: what it is measured on.
        plan: how it is trained.
        settings: as they were given.
        progress: told what happens.
        run: where that is kept; `None` where nothing is.
        stop: tells whether it is to end early.
        every: how often there is a checkpoint.
    """

    model: EmbeddingModel
    frozen: Sequence[nn.Module]
    objectives: Sequence[Objective]
    material: Material
    plan: Plan
    settings: Settings
    progress: Progress
    run: Run | None
    stop: Stop
    every: Every

    def go(
        self, *, best_metric: str | None, cache: str | Path | None, adapter: bool
    ) -> tuple[list[Measured], list[Epoch], list[Check]]:
        """Trains the model in place; the parameters are those of `fit`.

        A run that goes on is measured before training once more: the intervals of what it gained need what each query
        contributed, and the model is the same then, bit by bit.

        Returns:
            What was measured, the history, and the evaluations in the middle of training.

        Raises:
            FinetunerError: if training cannot go on.
            Interrupted: if the run was asked to end.
        """
        before = self._measure()
        if self.run is None or not self.run.goes_on:
            self._note("before", 0, before)
        # A folder that a killed process would leave behind is made only where there is no other.
        scratch: AbstractContextManager[str | Path] = (
            TemporaryDirectory(prefix="finetuner-") if self.run is None else nullcontext(self.run.folder)
        )
        with scratch as place:
            folder = Path(place)
            best = None
            if self.settings.eval_every is not None:
                best = BestWeights(
                    {"model": self.model} | {f"loss {number}": own.loss for number, own in enumerate(self.objectives)},
                    self._measure,
                    choose_judge(self.material.data, before, best_metric),
                    folder,
                    every=self.settings.eval_every,
                    patience=self.settings.patience,
                    on_check=self._checked,
                )
            try:
                history = self._train(best, folder / CACHE if cache is None else Path(cache).expanduser())
            except DivergedError as error:
                if self.run is None:
                    raise
                kept = self.model.save(f"{self.run.out}-step-{error.done}", adapter=adapter)
                raise TrainingError(f"{error}\nThe model as it was before that step is in {kept}.") from None
            if best is not None:
                self.progress.kept(best.restore())
        # What the best weights measured is known, unless that was before the run went on.
        after = self._measure() if best is None or best.best is None else best.best
        done = len(history) * self.material.steps if best is None else best.checks[-1].step
        self._note("after", done, after)
        measured = [Measured(name, before[name], after[name]) for name in before]
        return measured, history, [] if best is None else best.checks

    def _train(self, best: BestWeights[dict[str, Evaluation]] | None, cache: Path) -> list[Epoch]:
        keeping = None
        if self.run is not None:
            keeping = Keeping(self.run, self.every, self.stop, model=of_weights(self.model), best=best)
            if self.run.before is not None:
                self.progress.goes_on(self.run.before.numbers["position"])
        history = train(
            self.model,
            self.objectives,
            self.plan,
            feeds=[self._feeds(objective, cache) for objective in self.objectives],
            weights=self.material.weights,
            frozen=self.frozen,
            on_step=self.progress.step,
            on_epoch=self.progress.epoch,
            is_done=(lambda step, steps: False) if best is None else best.after_step,
            keeping=keeping,
        )
        if keeping is not None:
            keeping.end()
        return history

    def _feeds(self, objective: Objective, cache: Path) -> list[Feed]:
        cached = cached_feeds(
            self.model,
            objective.data,
            feeds_of(self.model, objective.data, self.plan.mirror),
            self.frozen,
            folder=cache,
            dtype=self.plan.dtype,
            seed=self.plan.seed,
            views=self.settings.views,
            epochs=self.plan.epochs,
            on_progress=self.progress.filling,
        )
        self.progress.cached(cached.said)
        return cached.feeds

    def _measure(self) -> dict[str, Evaluation]:
        widths = sorted({*self.settings.matryoshka} - {self.model.output_dim}, reverse=True)
        return {
            name: evaluate_dataset(self.model, own, metrics=self.material.metrics[name], widths=widths)
            for name, own in self.material.data.evals.items()
        }

    def _checked(self, check: Check, measured: Mapping[str, Evaluation]) -> None:
        self.progress.check(check)
        self._note("step", check.step, measured)

    def _note(self, when: str, step: int, measured: Mapping[str, Evaluation]) -> None:
        if self.run is not None:
            for name, own in measured.items():
                self.run.line(evaluation=when, step=step, data=name, metrics=dict(own))
