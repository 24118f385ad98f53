"""The training loop: batches in, a trained model and its history out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from finetuner_core.data.augment import augment
from finetuner_core.data.batches import ClassBatches, PairBatches, group_pairs
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import TrainingError
from finetuner_core.interfaces import ImagePreprocess, Prepared
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.optimizer import build_optimizer, learning_rate_factor
from finetuner_core.training.settings import Schedule


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
    loss: nn.Module,
    data: Dataset,
    batches: ClassBatches | PairBatches,
    plan: Plan,
    *,
    frozen: Sequence[nn.Module] = (),
    on_step: Callable[[float, int], None] = lambda loss, items: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Trains a model in place.

    Args:
        model: on the device where it is to be trained.
        loss: on the same device.
        data: what it learns from.
        batches: which rows make each step.
        plan: how.
        frozen: modules that stay in evaluation mode.
        on_step: told the loss and the number of items of each step.
        on_epoch: told each epoch when it ends.

    Returns:
        The history, an entry for each epoch.

    Raises:
        TrainingError: if the loss is no finite number.
    """
    torch.manual_seed(plan.seed)
    steps = plan.epochs * batches.per_epoch
    optimizer = build_optimizer(model, loss, plan.learning_rate, plan.weight_decay)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, plan.warmup, plan.schedule)
    )
    groups = _Groups(data)
    history: list[Epoch] = []
    model.train()
    for module in frozen:
        module.eval()
    for number in range(1, plan.epochs + 1):
        # A generator takes 64 bits.
        generator = torch.Generator().manual_seed((plan.seed * 1_000_003 + number) % 2**64)
        total, items, start = 0.0, 0, time.perf_counter()
        for step, rows in enumerate(batches.epoch(number), 1):
            with torch.autocast(model.device.type, torch.bfloat16, enabled=plan.dtype is torch.bfloat16):
                columns = embed_columns(model, data, rows, plan.mirror, generator)
            value = _loss_of(loss, columns, torch.tensor(groups.of(rows), device=model.device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
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
            on_step(number_of, len(rows))
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
    model.eval()
    return history


def embed_columns(
    model: EmbeddingModel, data: Dataset, rows: Sequence[int], mirror: bool | None, generator: torch.Generator
) -> list[Tensor]:
    """Embeddings of some rows, a tensor (B, D) for each column.

    Columns of one modality go through the network together, which is faster than one after the other.
    """
    prepared = [_prepare(model, column, rows, mirror, generator) for column in data.columns]
    modalities = {column.modality for column in data.columns}
    if len(modalities) == 1:
        embedded: Tensor = model(data.columns[0].modality, [item for column in prepared for item in column])
        return list(torch.split(embedded, len(rows)))
    return [model(column.modality, items) for column, items in zip(data.columns, prepared, strict=True)]


def _prepare(
    model: EmbeddingModel, column: Column, rows: Sequence[int], mirror: bool | None, generator: torch.Generator
) -> list[Prepared]:
    preprocess = model.preprocess(column.modality)
    prepared = preprocess.prepare(column.take(rows))
    if column.modality != "image" or mirror is None:
        return prepared
    size = cast("ImagePreprocess", preprocess).image_size
    return augment(prepared, size, generator, mirror=mirror)


def _loss_of(loss: nn.Module, columns: Sequence[Tensor], labels: Tensor) -> Tensor:
    if len(columns) == 1:
        value: Tensor = loss(columns[0], labels)
    else:
        anchors, positives = columns
        # By name, since in pytorch-metric-learning another parameter stands between them; and a copy, since there the
        # same tensor means the same items, of which none is paired with itself.
        value = loss(anchors, labels, ref_emb=positives, ref_labels=labels.clone())
    return value


class _Groups:
    """Labels for the rows of a batch: equal where they belong together."""

    def __init__(self, data: Dataset) -> None:
        self.classes = data.classes if data.form == "labelled" else []
        self.identities = [column.identities() for column in data.columns] if data.form == "pairs" else []

    def of(self, rows: Sequence[int]) -> list[int]:
        if not self.identities:
            return [self.classes[row] for row in rows]
        anchors, positives = ([identities[row] for row in rows] for identities in self.identities)
        return group_pairs(anchors, positives)
