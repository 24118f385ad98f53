"""What one step computes: the embeddings of a batch, and the loss over all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.data.augment import augment
from finetuner_core.data.batches import Batches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.known import Rows
from finetuner_core.interfaces import ImagePreprocess, Prepared, Preprocess
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder


@dataclass(frozen=True)
class Objective:
    """A data set with the loss that learns from it, and its batches.

    Args:
        data: what is learned from.
        loss: on the device of the model; see `finetuner_core.losses` for how it is called.
        batches: which rows make each step.
    """

    data: Dataset
    loss: nn.Module
    batches: Batches

    def check(self, dim: int) -> None:
        """Whether the loss takes the data, asked with random embeddings before anything is computed.

        Args:
            dim: width of the model's embeddings.

        Raises:
            DataError: if it says that it does not.
        """
        rows = next(self.batches.epoch(1))
        generator = torch.Generator().manual_seed(0)
        columns = [F.normalize(torch.randn(len(rows), dim, generator=generator)) for _ in self.data.columns]
        # A copy, since some losses remember what they have seen.
        objective = replace(self, loss=copy.deepcopy(self.loss).cpu())
        with torch.no_grad():
            objective.loss_of(columns, rows)

    def loss_of(self, columns: Sequence[Tensor], rows: Rows) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            columns: the embeddings (B, D) of each column.
            rows: which rows of the data they are.
        """
        anchors, *others = columns
        device, known = anchors.device, self.batches.known
        if self.data.scores is not None:
            scores = torch.from_numpy(self.data.scores[np.asarray(rows)]).to(device)
            value: Tensor = self.loss(anchors, scores, ref_emb=torch.stack(others, dim=1))
            return value
        told = takes_excluded(self.loss)
        labels, ref_labels = known.labels(rows) if told else known.grouped(rows)
        given: dict[str, Tensor] = {}
        if others:
            # By name, since in pytorch-metric-learning another parameter stands between them; and labels of their own,
            # since there the same tensor means the same items, of which none is paired with itself.
            given["ref_emb"] = torch.cat(others)
            given["ref_labels"] = torch.from_numpy(ref_labels.copy()).to(device)
        remembered = None
        if isinstance(self.loss, MemoryLoss):
            given["items"] = torch.from_numpy(known.references(rows)).to(device)
            remembered = self.loss.items.cpu().numpy()
        if told and (excluded := known.excluded(rows, remembered)) is not None:
            given["excluded"] = torch.from_numpy(excluded).to(device)
        value = self.loss(anchors, torch.from_numpy(labels).to(device), **given)
        return value


def embed_columns(
    model: EmbeddingModel,
    data: Dataset,
    rows: Rows,
    mirror: bool | None,
    generator: torch.Generator,
    on_prepared: Callable[[Preprocess, Sequence[Prepared]], None] = lambda preprocess, prepared: None,
) -> list[Tensor]:
    """Embeddings of some rows, a tensor (B, D) for each column.

    Columns that one encoder reads go through it together, which is faster than one after the other.

    Args:
        model: the model.
        data: where the rows are.
        rows: their numbers.
        mirror: whether images are mirrored at random; `None` where they are left as they are.
        generator: where the randomness of images comes from.
        on_prepared: told of what a preprocess has made of each column's items.
    """
    prepared: list[Sequence[Prepared]] = []
    together: dict[Encoder, list[int]] = {}
    for number, (column, side) in enumerate(zip(data.columns, data.sides, strict=True)):
        preprocess = model.preprocess(column.modality, side)
        items = preprocess.prepare(column.take(rows))
        on_prepared(preprocess, items)
        if column.modality == "image" and mirror is not None:
            size = cast("ImagePreprocess", preprocess).image_size
            items = augment(items, size, generator, mirror=mirror)
        prepared.append(items)
        together.setdefault(model.encoder(column.modality, side), []).append(number)
    embedded: dict[int, Tensor] = {}
    for numbers in together.values():
        column, side = data.columns[numbers[0]], data.sides[numbers[0]]
        vectors = model(column.modality, [item for number in numbers for item in prepared[number]], side)
        embedded.update(zip(numbers, vectors.split(len(rows)), strict=True))
    return [embedded[number] for number in range(len(data.columns))]
