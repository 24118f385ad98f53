"""Where the embeddings of a column come from: its items, made ready for the encoder that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch

from finetuner_core.data.augment import augment
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.known import Rows
from finetuner_core.interfaces import Batch, ImagePreprocess, Prepared, Preprocess
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder


class Feed(Protocol):
    """A column, and what embeds it. Columns with the same encoder are embedded together."""

    encoder: Encoder

    def prepare(self, rows: Rows, generator: torch.Generator) -> Sequence[Prepared]:
        """The items of some rows, made ready. It may run in another thread than the rest."""
        ...

    def length(self, prepared: Prepared) -> int:
        """How many tokens the encoder will see of an item."""
        ...

    def collate(self, prepared: Sequence[Prepared]) -> Batch:
        """Makes the tensors of some items that are computed together."""
        ...


class ColumnFeed:
    """Reads a column's items anew in every step.

    Args:
        column: the items.
        preprocess: how they are made ready.
        encoder: what embeds them.
        mirror: whether images are mirrored at random; `None` where they are left as they are.
    """

    def __init__(self, column: Column, preprocess: Preprocess, encoder: Encoder, mirror: bool | None) -> None:
        self.column, self.preprocess, self.encoder, self.mirror = column, preprocess, encoder, mirror
        size = getattr(preprocess, "image_size", None)
        if size is not None:
            self.image_size: tuple[int, int] = size

    def prepare(self, rows: Rows, generator: torch.Generator) -> Sequence[Prepared]:
        """Read, made ready and, where they are images, varied at random."""
        items = self.preprocess.prepare(self.column.take(rows))
        if self.column.modality == "image" and self.mirror is not None:
            size = cast("ImagePreprocess", self.preprocess).image_size
            return augment(items, size, generator, mirror=self.mirror)
        return items

    def length(self, prepared: Prepared) -> int:
        """How many tokens the encoder will see of an item."""
        return self.preprocess.length(prepared)

    def collate(self, prepared: Sequence[Prepared]) -> Batch:
        """Makes the tensors of some items that are computed together."""
        return self.preprocess.collate(prepared)


def feeds_of(model: EmbeddingModel, data: Dataset, mirror: bool | None) -> list[Feed]:
    """A feed for each column of a data set.

    Args:
        model: what embeds them.
        data: the columns.
        mirror: whether images are mirrored at random; `None` where they are left as they are.
    """
    return [
        ColumnFeed(column, model.preprocess(column.modality, side), model.encoder(column.modality, side), mirror)
        for column, side in zip(data.columns, data.sides, strict=True)
    ]
