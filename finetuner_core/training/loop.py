"""The training loop: batches in, a trained model and its history out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import nn

from finetuner_core.data.ahead import prepare_ahead
from finetuner_core.data.augment import generator_of
from finetuner_core.data.batches import MixedBatches
from finetuner_core.errors import TrainingError
from finetuner_core.interfaces import Prepared, Preprocess
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.modeling.embedding_model import EmbeddingModel, count_cut, warn_of_cut
from finetuner_core.training.allocator import keep_freed_memory
from finetuner_core.training.feed import ColumnFeed, Feed, feeds_of
from finetuner_core.training.objective import Objective
from finetuner_core.training.optimizer import build_optimizer, learning_rate_factor
from finetuner_core.training.settings import Schedule
from finetuner_core.training.step import Step

logger = logging.getLogger("finetuner")


class Epoch(TypedDict):
    """One line of the history."""

    epoch: int
    loss: float
    learning_rate: float  # in its last step
    items_per_second: float
    seconds: float


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
) -> list[Epoch]:
    """Trains a model in place.

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

    Returns:
        The history, an entry for each epoch.

    Raises:
        DivergedError: if the loss or its gradient is no finite number.
        TrainingError: if there is not enough memory for a single item.
    """
    keep_freed_memory()
    use_fast_dropout(model)
    torch.manual_seed(plan.seed)
    batches = MixedBatches([objective.batches for objective in objectives], weights, plan.seed)
    steps = plan.epochs * batches.per_epoch
    losses = nn.ModuleList([objective.loss for objective in objectives])
    optimizer = build_optimizer(model, losses, plan.learning_rate, plan.weight_decay, new=model.new_parameters())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, plan.warmup, plan.schedule)
    )
    step_of = Step(trained, model.device, plan.dtype, plan.chunk_size)
    feeds = feeds or [feeds_of(model, objective.data, plan.mirror) for objective in objectives]
    cut = _Cut()
    history: list[Epoch] = []
    done, ended = 0, False
    model.train()
    for module in frozen:
        module.eval()
    for number in range(1, plan.epochs + 1):
        total, items, start = 0.0, 0, time.perf_counter()
        with prepare_ahead(_batches(batches, number), _Prepare(feeds, plan.seed), plan.workers) as ahead:
            for batch, prepared in ahead:
                objective, own = objectives[batch.which], feeds[batch.which]
                cut.see(own, prepared)
                optimizer.zero_grad(set_to_none=True)
                remembered = objective.buffers()
                loss = step_of.backward(objective, own, prepared, batch.rows)
                if not done:
                    _warn_of_unreached(model)
                norm = nn.utils.clip_grad_norm_(trained, plan.max_grad_norm or math.inf)
                learning_rate = float(schedule.get_last_lr()[0])
                if math.isfinite(loss) and math.isfinite(norm):
                    optimizer.step()
                    total += loss * len(batch.rows)
                    items += len(batch.rows)
                elif plan.skip_bad_steps:
                    objective.restore(remembered)
                    logger.warning("%s; it is left out", _bad(loss, batch, objective))
                else:
                    raise DivergedError(_bad(loss, batch, objective), plan.learning_rate, done)
                schedule.step()
                done += 1
                on_step(loss, len(batch.rows))
                paused = time.perf_counter()
                ended = is_done(done, steps)
                start += time.perf_counter() - paused  # what is measured in the middle is no training
                if ended:
                    break
        seconds = time.perf_counter() - start
        epoch = Epoch(
            epoch=number,
            loss=total / items if items else math.nan,
            learning_rate=learning_rate,
            items_per_second=items / seconds,
            seconds=seconds,
        )
        history.append(epoch)
        on_epoch(epoch)
        cut.say_once()
        if ended:
            break
    model.eval()
    return history


class _Batch(NamedTuple):
    """Which rows make a step."""

    epoch: int
    step: int
    which: int
    rows: list[int]


def _batches(batches: MixedBatches, epoch: int) -> Iterator[_Batch]:
    for step, (which, rows) in enumerate(batches.epoch(epoch), 1):
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


class _Cut:
    """Counts the texts of the first epoch that were longer than the model reads, and says so when it is over."""

    def __init__(self) -> None:
        self.counts: dict[Preprocess, tuple[int, int]] = {}
        self.said = False

    def see(self, feeds: Sequence[Feed], prepared: Sequence[Sequence[Prepared]]) -> None:
        for feed, items in zip(feeds, prepared, strict=True):
            if not self.said and isinstance(feed, ColumnFeed):
                cut, before = self.counts.get(feed.preprocess, (0, 0))
                self.counts[feed.preprocess] = (cut + count_cut(feed.preprocess, items), before + len(items))

    def say_once(self) -> None:
        if not self.said:
            for preprocess, (cut, items) in self.counts.items():
                warn_of_cut(preprocess, cut, items)
        self.said = True
