"""What a model learns from: data, a loss over each batch of it, and the batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.data.batches import Batches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.known import Rows
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.losses.memory import MemoryLoss


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

    def buffers(self) -> dict[str, Tensor]:
        """What the loss remembers of steps before, to go back to it."""
        return {name: tensor.clone() for name, tensor in self.loss.named_buffers()}

    def restore(self, buffers: Mapping[str, Tensor]) -> None:
        """Has the loss remember what it did then."""
        now = dict(self.loss.named_buffers())
        for name, tensor in buffers.items():
            now[name].copy_(tensor)

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
