"""sentence-transformers' side, as its documentation has it (https://sbert.net/docs/sentence_transformer)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Dense
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from benchmarks.speed.quality import from_int8, retrieval
from benchmarks.speed.turns import Turns
from benchmarks.speed.work import Work


class _OnStep(TrainerCallback):
    """Tells of each step when it is over."""

    def __init__(self, told: Callable[[], object]) -> None:
        self.told = told

    def on_step_end(self, args: object, state: object, control: object, **given: Any) -> None:
        self.told()


class _OnLoss(TrainerCallback):
    """Keeps the loss of each step; it asks for `logging_steps=1`."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: object, state: object, control: object, **given: Any) -> None:
        if "loss" in given["logs"]:
            self.losses.append(given["logs"]["loss"])


def text_training(turns: Turns, work: Work, *, mini_batch_size: int | None = None, **given: Any) -> None:
    """A turn is a step over pairs of texts."""
    model = _model(work)
    trainer = _trainer(model, work, mini_batch_size, **given)
    trainer.add_callback(_OnStep(lambda: turns.end(items=work.batch_size)))
    turns.ready()
    trainer.train()


def encoding(turns: Turns, work: Work, *, dtype: str | None = None, int8: bool = False, keep: str = "") -> None:
    """A turn is a pass over all texts; what the vectors of the first stand for is kept."""
    model, texts = _model(work, **({} if dtype is None else {"model_kwargs": {"dtype": dtype}})), work.texts()
    turns.ready()
    while True:
        vectors = model.encode(texts, precision="int8" if int8 else "float32", show_progress_bar=False)
        if keep:
            whole = model.encode(texts, show_progress_bar=False) if int8 else None
            np.save(keep, vectors.astype(np.float32) if whole is None else from_int8(vectors, whole))
            keep = ""
        turns.end(items=len(texts))


def frozen_text(turns: Turns, work: Work, **given: Any) -> None:
    """A turn is a whole run over pairs with the transformer frozen and a layer that is trained."""
    transformer, pooling, *_ = _model(work)
    for parameter in transformer.parameters():
        parameter.requires_grad = False
    layer = Dense(pooling.get_embedding_dimension(), 256, bias=False, activation_function=torch.nn.Identity())
    model = SentenceTransformer(modules=[transformer, pooling, layer], device=work.device)
    turns.ready()
    _trainer(model, work, None, learning_rate=1e-3, **given).train()
    turns.end(items=work.epochs * len(work.rows()))


def quality(turns: Turns, work: Work, *, seed: int, learning_rate: float) -> None:
    """A turn is a whole run over shuffled pairs and how well the held-out ones are found afterwards."""
    work, model, seen = work.shuffled(seed), _model(work), _OnLoss()
    # A tenth of the steps for warming up, as on the other side.
    trainer = _trainer(model, work, None, learning_rate=learning_rate, warmup_steps=0.1, logging_steps=1, seed=seed)
    trainer.add_callback(seen)
    turns.ready()
    trainer.train()
    model.eval()
    encoded = (model.encode(list(texts), show_progress_bar=False) for texts in zip(*work.held_out, strict=True))
    turns.end(items=len(work.rows()), losses=seen.losses, **retrieval(*encoded))


def _trainer(
    model: SentenceTransformer, work: Work, mini_batch_size: int | None, **given: Any
) -> SentenceTransformerTrainer:
    disable_progress_bars()
    anchors, positives = zip(*work.rows(), strict=True)
    loss: torch.nn.Module
    if mini_batch_size is None:
        loss = losses.MultipleNegativesRankingLoss(model)
    else:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=tempfile.mkdtemp(dir=work.folder),
        num_train_epochs=work.epochs,
        per_device_train_batch_size=work.batch_size,
        batch_sampler=_in_order,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=work.device == "cpu",
        **given,
    )
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})
    return SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss)


def _in_order(dataset: Dataset, **given: Any) -> DefaultBatchSampler:
    """The same batches as the other side's."""
    return DefaultBatchSampler(SequentialSampler(dataset), **given)


def _model(work: Work, **given: Any) -> SentenceTransformer:
    model = SentenceTransformer(work.model, device=work.device, **given)
    if work.max_length is not None:
        model.max_seq_length = work.max_length
    return model
