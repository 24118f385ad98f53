"""The training loop: batches in, a trained model and its history out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from finetuner_core.data.ahead import prepare_ahead
from finetuner_core.data.augment import generator_of
from finetuner_core.data.batches import MixedBatches
from finetuner_core.errors import TrainingError
from finetuner_core.interfaces import Prepared
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.allocator import freed_memory_kept
from finetuner_core.training.cut_texts import CutTexts
from finetuner_core.training.feed import Feed, feeds_of
from finetuner_core.training.keeping import Keeping
from finetuner_core.training.objective import Objective
from finetuner_core.training.optimizer import build_optimizer, learning_rate_factor
from finetuner_core.training.randomness import seed_all
from finetuner_core.training.settings import Schedule
from finetuner_core.training.state import Epoch, Position, TrainingState
from finetuner_core.training.step import Step

logger = logging.getLogger("finetuner")


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know, all of it decided.

    Args:
        epochs: how often the data is gone through.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises.
        schedule: how it falls.
        max_grad_norm: gradients longer than this are shortened to it; 0 for never.
        dtype: what the forward pass computes in.
        mirror: whether training images are mirrored; `None` where they are not augmented at all.
        seed: what augmentation and dropout follow from.
        chunk_size: the most items that keep their graph at once; `None` for as many as fit into memory.
        workers: how many threads prepare items ahead; 0 for none.
        skip_bad_steps: whether a step without a finite loss and gradient is left out, instead of ending the run.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup: float
    schedule: Schedule
    max_grad_norm: float
    dtype: torch.dtype
    mirror: bool | None
    seed: int
    chunk_size: int | None = None
    workers: int = 1
    skip_bad_steps: bool = False


@freed_memory_kept()
def train(
    model: EmbeddingModel,
    objectives: Sequence[Objective],
    plan: Plan,
    *,
    feeds: Sequence[Sequence[Feed]] | None = None,
    weights: Sequence[float] | None = None,
    frozen: Sequence[nn.Module] = (),
    on_step: Callable[[float, int], None] = lambda loss, items: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    is_done: Callable[[int, int], bool] = lambda step, steps: False,
    keeping: Keeping | None = None,
) -> list[Epoch]:
    """Trains a model in place.

    A run that goes on from a checkpoint computes what it would have computed without its end, bit by bit.

    Args:
        model: on the device where it is to be trained.
        objectives: what it learns from; of several, each step takes a batch of one.
        plan: how.
        feeds: for each objective where its columns come from; else each item is read and embedded in every step.
        weights: for each objective its share of the steps, in any unit; else each gives its batches once an epoch.
        frozen: modules that stay in evaluation mode.
        on_step: told the loss and the number of items of each step.
        on_epoch: told each epoch when it ends.
        is_done: asked after each step, with the number of steps done and of all, whether to end here.
        keeping: puts back what a checkpoint holds, and writes further ones.

    Returns:
        The history, an entry for each epoch.

    Raises:
        DivergedError: if the loss or its gradient is no finite number.
        TrainingError: if there is not enough memory for a single item.
        Interrupted: if it was asked to end, after a checkpoint.
    """
    use_fast_dropout(model)
    seed_all(plan.seed)
    batches = MixedBatches([objective.batches for objective in objectives], weights, plan.seed)
    steps = plan.epochs * batches.per_epoch
    losses = nn.ModuleList([objective.loss for objective in objectives])
    optimizer = build_optimizer(model, losses, plan.learning_rate, plan.weight_decay, new=model.new_parameters())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    step_of = Step(trained, model.device, plan.dtype, plan.chunk_size)
    feeds = feeds or [feeds_of(model, objective.data, plan.mirror) for objective in objectives]
    at, cut = Position(), CutTexts(feeds)
    state = TrainingState(model, losses, optimizer, step_of.budget, feeds, cut, at, model.device)
    if keeping is not None:
        keeping.restore(state)
    model.train()
    for module in frozen:
        module.eval()
    while at.epoch <= plan.epochs and not (at.is_over and at.step == 0):
        left = () if at.is_over else _batches(batches, at.epoch, at.step)
        started = time.perf_counter()
        with prepare_ahead(left, _Prepare(feeds, plan.seed), plan.workers) as ahead:
            for batch, prepared in ahead:
                objective, own = objectives[batch.which], feeds[batch.which]
                cut.see(own, prepared)
                factor = learning_rate_factor(at.done, steps, plan.warmup, plan.schedule)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                at.learning_rate = rates[0] * factor
                optimizer.zero_grad(set_to_none=True)
                remembered = objective.buffers()
                loss = step_of.backward(objective, own, prepared, batch.rows)
                if not at.done:
                    _warn_of_unreached(model)
                norm = nn.utils.clip_grad_norm_(trained, plan.max_grad_norm or math.inf)
                if math.isfinite(loss) and math.isfinite(norm):
                    optimizer.step()
                    at.loss += loss * len(batch.rows)
                    at.items += len(batch.rows)
                elif plan.skip_bad_steps:
                    objective.restore(remembered)
                    logger.warning("%s; it is left out", _bad(loss, batch, objective))
                else:
                    raise DivergedError(_bad(loss, batch, objective), plan.learning_rate, at.done)
                at.done, at.step = at.done + 1, at.step + 1
                now = time.perf_counter()
                at.seconds += now - started
                on_step(loss, len(batch.rows))
                if keeping is not None:
                    keeping.note(at, loss, len(batch.rows), now - started)
                at.is_over = is_done(at.done, steps)
                if keeping is not None:
                    keeping.after_step(state, steps)
                started = time.perf_counter()  # what is measured or written in the middle is no training
                if at.is_over:
                    break
        epoch = Epoch(
            epoch=at.epoch,
            loss=at.loss / at.items if at.items else math.nan,
            learning_rate=at.learning_rate,
            items_per_second=at.items / at.seconds,
            seconds=at.seconds,
        )
        at.end_epoch(epoch)
        on_epoch(epoch)
        cut.say_once()
    model.eval()
    return at.history


class _Batch(NamedTuple):
    """Which rows make a step."""

    epoch: int
    step: int
    which: int
    rows: list[int]


def _batches(batches: MixedBatches, epoch: int, done: int) -> Iterator[_Batch]:
    """What is left of an epoch after so many steps."""
    for step, (which, rows) in enumerate(batches.epoch(epoch, done), done + 1):
        yield _Batch(epoch, step, which, rows)


class _Prepare:
    """Makes the items of a step ready; it runs in threads beside the one that trains."""

    def __init__(self, feeds: Sequence[Sequence[Feed]], seed: int) -> None:
        self.feeds, self.seed = feeds, seed

    def __call__(self, batch: _Batch) -> tuple[_Batch, list[Sequence[Prepared]]]:
        # Of the step alone, so that it does not matter who prepares which.
        generator = generator_of(self.seed, batch.epoch, batch.step)
        return batch, [feed.prepare(batch.rows, generator) for feed in self.feeds[batch.which]]


def _bad(loss: float, batch: _Batch, objective: Objective) -> str:
    what = f"The loss became {loss}" if not math.isfinite(loss) else "The gradient became infinite or NaN"
    rows = ", ".join(map(str, batch.rows[:5])) + (", ..." if len(batch.rows) > 5 else "")
    return f"{what} in step {batch.step} of epoch {batch.epoch}, on the rows {rows} of {objective.data.source}"


class DivergedError(TrainingError):
    """A step without a finite loss or gradient. The model is as it was before it.

    Args:
        what: what happened, where.
        learning_rate: at its peak.
        done: how many steps were done before.
    """

    def __init__(self, what: str, learning_rate: float, done: int) -> None:
        super().__init__(
            f"{what}.\nTry a lower learning rate than {learning_rate:g}, precision float32, or leave such steps out: "
            "--skip-bad-steps."
        )
        self.done = done


def _warn_of_unreached(model: nn.Module) -> None:
    """After the first step: what is meant to be trained and has no gradient would stay as it is, unnoticed."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if names:
        logger.warning("%s parameters get no gradient and stay as they are, such as %s", f"{len(names):,}", names[0])
