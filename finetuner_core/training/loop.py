"""The training loop: batches in, a trained model and its history out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import nn

from finetuner_core.data.batches import MixedBatches
from finetuner_core.errors import TrainingError
from finetuner_core.interfaces import Prepared, Preprocess
from finetuner_core.modeling.embedding_model import EmbeddingModel, count_cut, warn_of_cut
from finetuner_core.training.optimizer import build_optimizer, learning_rate_factor
from finetuner_core.training.settings import Schedule
from finetuner_core.training.step import Objective, embed_columns

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


def train(
    model: EmbeddingModel,
    objectives: Sequence[Objective],
    plan: Plan,
    *,
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
        weights: for each objective its share of the steps, in any unit; else each gives its batches once an epoch.
        frozen: modules that stay in evaluation mode.
        on_step: told the loss and the number of items of each step.
        on_epoch: told each epoch when it ends.
        is_done: asked after each step, with the number of steps done and of all, whether to end here.

    Returns:
        The history, an entry for each epoch.

    Raises:
        TrainingError: if the loss is no finite number.
    """
    torch.manual_seed(plan.seed)
    batches = MixedBatches([objective.batches for objective in objectives], weights, plan.seed)
    steps = plan.epochs * batches.per_epoch
    losses = nn.ModuleList([objective.loss for objective in objectives])
    optimizer = build_optimizer(model, losses, plan.learning_rate, plan.weight_decay, new=model.new_parameters())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, plan.warmup, plan.schedule)
    )
    cut = _Cut()
    history: list[Epoch] = []
    done, ended = 0, False
    model.train()
    for module in frozen:
        module.eval()
    for number in range(1, plan.epochs + 1):
        # A generator takes 64 bits.
        generator = torch.Generator().manual_seed((plan.seed * 1_000_003 + number) % 2**64)
        total, items, start = 0.0, 0, time.perf_counter()
        for step, (which, rows) in enumerate(batches.epoch(number), 1):
            objective = objectives[which]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=plan.dtype is torch.bfloat16):
                columns = embed_columns(model, objective.data, rows, plan.mirror, generator, cut.see)
            value = objective.loss_of(columns, rows)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if not history and step == 1:
                _warn_of_unreached(model)
            if plan.max_grad_norm:
                nn.utils.clip_grad_norm_(trained, plan.max_grad_norm)
            number_of = value.item()
            if not torch.isfinite(value):
                raise TrainingError(
                    f"The loss became {number_of} in step {step} of epoch {number}; the model is of no use any more.\n"
                    f"Try a lower learning rate than {plan.learning_rate:g}, or precision float32."
                )
            optimizer.step()
            learning_rate = float(schedule.get_last_lr()[0])
            schedule.step()
            total += number_of * len(rows)
            items += len(rows)
            done += 1
            on_step(number_of, len(rows))
            paused = time.perf_counter()
            ended = is_done(done, steps)
            start += time.perf_counter() - paused  # what is measured in the middle is no training
            if ended:
                break
        seconds = time.perf_counter() - start
        epoch = Epoch(
            epoch=number,
            loss=total / items,
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

    def see(self, preprocess: Preprocess, prepared: Sequence[Prepared]) -> None:
        if not self.said:
            cut, items = self.counts.get(preprocess, (0, 0))
            self.counts[preprocess] = (cut + count_cut(preprocess, prepared), items + len(prepared))

    def say_once(self) -> None:
        if not self.said:
            for preprocess, (cut, items) in self.counts.items():
                warn_of_cut(preprocess, cut, items)
        self.said = True
