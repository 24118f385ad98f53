"""Finetuner's side. All that depends on how its training is called is here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

import finetuner
from benchmarks.speed.quality import from_int8, retrieval
from benchmarks.speed.turns import Turns
from benchmarks.speed.work import Work
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.known import Known
from finetuner_core.losses.build import build_loss, loss_options
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.choices import choose_plan
from finetuner_core.training.fit import fit
from finetuner_core.training.freezing import batch_statistics, freeze
from finetuner_core.training.loop import train
from finetuner_core.training.objective import Objective
from finetuner_core.training.settings import Settings


@dataclass
class Given:
    """Batches that are given, in their order: see `finetuner_core.data.batches.Batches`."""

    rows: Sequence[list[int]]
    known: Known

    @property
    def per_epoch(self) -> int:
        return len(self.rows)

    def epoch(self, number: int, start: int = 0) -> Iterator[list[int]]:
        return iter(self.rows[start:])


def text_training(turns: Turns, work: Work, **given: Any) -> None:
    """A turn is a step over pairs of texts."""
    _train(turns, _model(work), _pairs(work), work, report=_tokens, **given)


def image_training(turns: Turns, work: Work, **given: Any) -> None:
    """A turn is a step over labelled images, from random weights."""
    model = finetuner.build_model(f"timm/{work.model}", pretrained=False)
    data = Dataset((Column("image", "image", [Path(path) for path in work.pictures]),), work.labels)
    _train(turns, model, data, work, **given)


def encoding(turns: Turns, work: Work, *, precision: str = "float32", int8: bool = False, keep: str = "") -> None:
    """A turn is a pass over all texts; what the vectors of the first stand for is kept."""
    model, texts = _model(work), work.texts()
    model.to(choose_device(work.device))
    turns.ready()
    while True:
        with torch.autocast(work.device, torch.bfloat16, enabled=precision == "bfloat16"):
            vectors = model.encode(texts)
        if int8:
            levels = finetuner.quantize(vectors, "int8", np.stack([vectors.min(axis=0), vectors.max(axis=0)]))
        if keep:
            np.save(keep, from_int8(levels, vectors) if int8 else vectors)
            keep = ""
        turns.end(items=len(texts))


def frozen_text(turns: Turns, work: Work, **given: Any) -> None:
    """A turn is a whole run over pairs with the backbone frozen and a projection that is trained."""
    rows = [{"anchor": anchor, "positive": positive} for anchor, positive in work.rows()]
    held_out = [{"anchor": anchor, "positive": positive} for anchor, positive in work.held_out]
    _run_frozen(turns, work, finetuner.build_model(work.model, output_dim=256), rows, held_out, **given)


def frozen_images(turns: Turns, work: Work, **given: Any) -> None:
    """The same over labelled images, from random weights."""
    rows = [{"image": path, "label": label} for path, label in zip(work.pictures, work.labels, strict=True)]
    # The first ones of every label, since evaluation has to have something to evaluate.
    held_out = [row for row in rows if row["label"] in set(work.labels[:2])][:8]
    model = finetuner.build_model(f"timm/{work.model}", pretrained=False, output_dim=256)
    _run_frozen(turns, work, model, rows, held_out, **given)


def quality(turns: Turns, work: Work, *, seed: int, learning_rate: float) -> None:
    """A turn is a whole run over shuffled pairs and how well the held-out ones are found afterwards."""
    work, model = work.shuffled(seed), _model(work)
    losses: list[float] = []
    plain = {"learning_rate": learning_rate, "weight_decay": 0.0, "schedule": "linear", "precision": "float32"}
    turns.ready()
    _steps(model, _pairs(work), work, losses.append, seed=seed, **plain)
    found = retrieval(*(model.encode(list(texts)) for texts in zip(*work.held_out, strict=True)))
    turns.end(items=len(work.rows()), losses=losses, **found)


def _run_frozen(turns: Turns, work: Work, model: EmbeddingModel, rows: object, held_out: object, **given: Any) -> None:
    turns.ready()
    fit(
        model, rows, held_out, freeze="backbone", epochs=work.epochs, batch_size=work.batch_size, augment="none",
        device=work.device, quiet=True, **given,
    )  # fmt: skip
    turns.end(items=work.epochs * len(work.labels or work.rows()))


def _train(
    turns: Turns,
    model: EmbeddingModel,
    data: Dataset,
    work: Work,
    *,
    report: Callable[[EmbeddingModel, Dataset, list[int]], dict[str, object]] = lambda *_: {},
    **given: Any,
) -> None:
    if unknown := [name for name in given if name not in {field.name for field in fields(Settings)}]:
        turns.skip(f"fit has no {unknown[0]}")
    batches = iter([report(model, data, rows) for rows in work.batches()])
    turns.ready()
    _steps(model, data, work, lambda loss: turns.end(items=work.batch_size, loss=loss, **next(batches)), **given)


def _steps(model: EmbeddingModel, data: Dataset, work: Work, on_loss: Callable[[float], None], **given: Any) -> Any:
    """What `fit` does between its two evaluations, over batches that are given."""
    parameters = inspect.signature(fit).parameters
    defaults = {field.name: parameters[field.name].default for field in fields(Settings)}
    defaults["matryoshka"] = tuple(defaults["matryoshka"] or ())
    settings = Settings(**{**defaults, "epochs": 1, "batch_size": work.batch_size, "device": work.device, **given})
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    model.to(device)
    frozen = [*freeze(model, settings.freeze), *batch_statistics(model)]
    loss = build_loss("infonce", model.output_dim, loss_options("infonce", {})).to(device)
    objective = Objective(data, loss, Given(work.batches(), Known(data)))
    plan = choose_plan(model, data, settings, device)
    return train(model, [objective], plan, frozen=frozen, on_step=lambda loss, items: on_loss(loss))


def _model(work: Work) -> EmbeddingModel:
    options: dict[str, Any] = {} if work.max_length is None else {"max_length": work.max_length}
    return finetuner.build_model(work.model, **options)


def _pairs(work: Work) -> Dataset:
    anchors, positives = zip(*work.rows(), strict=True)
    return Dataset((Column("anchor", "text", anchors), Column("positive", "text", positives)))


def _tokens(model: EmbeddingModel, data: Dataset, rows: list[int]) -> dict[str, object]:
    """How long each text of a batch is, in tokens that the model reads."""
    lengths: list[int] = []
    for column, side in zip(data.columns, data.sides, strict=True):
        preprocess = model.preprocess("text", side)
        lengths += [preprocess.length(item) for item in preprocess.prepare(column.take(rows))]
    return {"tokens": sum(lengths), "lengths": lengths}
