"""The columns of a data set whose encoder is frozen, read from a cache instead of computed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finetuner_core.data.dataset import PLURAL, Dataset
from finetuner_core.data.known import Rows
from finetuner_core.interfaces import Batch, Prepared
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.modeling.tower import Tower
from finetuner_core.training.feed import ColumnFeed, Feed
from finetuner_core.training.frozen.boundary import Boundary, find_boundary
from finetuner_core.training.frozen.cut import autocast, evaluating
from finetuner_core.training.frozen.fill import Filling, Views, first_rows
from finetuner_core.training.frozen.find import Probe
from finetuner_core.training.frozen.layout import NotCachedError
from finetuner_core.training.frozen.store import Records, Store, UnwritableError
from finetuner_core.values import Modality

logger = logging.getLogger("finetuner")

VIEWS = 4
"""How many views there are of each image that is varied at random."""

_PROBED = 64
# What is left free on a disk, in bytes, since others write there too.
_SPARE = 256 * 2**20


class CachedFeed:
    """Reads what was kept of a column's items.

    Args:
        live: the column as it is without a cache.
        boundary: how the records are read, and what embeds them.
        records: of the column's rows.
    """

    def __init__(self, live: ColumnFeed, boundary: Boundary, records: Records) -> None:
        self.encoder = boundary.encoder
        self._boundary, self._records = boundary, records
        size = getattr(live, "image_size", None)
        if size is not None and boundary.within:
            self.image_size: tuple[int, int] = size

    def prepare(self, rows: Rows, generator: torch.Generator) -> Sequence[np.ndarray]:
        """The records of some rows; of several views one each, at random."""
        views = [0] * len(rows)
        if self._records.views > 1:
            views = torch.randint(self._records.views, (len(rows),), generator=generator).tolist()
        return [self._records.read(int(row), view) for row, view in zip(rows, views, strict=True)]

    def length(self, prepared: np.ndarray) -> int:
        """How many tokens the encoder will see of an item."""
        return self._boundary.length(prepared)

    def collate(self, prepared: Sequence[np.ndarray]) -> Batch:
        """Makes the tensors of some items that are computed together."""
        return self._boundary.batch(prepared)


@dataclass(frozen=True)
class Cached:
    """What training is to read.

    Args:
        feeds: one for each column: from the cache, or as it was given.
        said: for each encoder that is frozen a sentence: what is cached of it, or why nothing is.
    """

    feeds: list[Feed]
    said: list[str]


def cached_feeds(
    model: EmbeddingModel,
    data: Dataset,
    feeds: Sequence[Feed],
    frozen: Sequence[nn.Module],
    *,
    folder: Path,
    dtype: torch.dtype,
    seed: int = 0,
    views: int = VIEWS,
    epochs: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, items: None,
) -> Cached:
    """Computes once what the frozen parts of a model give of each item, and feeds training with that.

    Losses and gradients are those without a cache, as far as images are not varied at random; where they are, training
    sees as many views of each as there are, in the place of a new one each time.

    Args:
        model: on its device.
        data: what is trained on.
        feeds: its columns, as they are read without a cache.
        frozen: the modules that stay in evaluation mode in training.
        folder: where the cache is: one of the run's own, or one that is kept, with what other runs have computed.
        dtype: what the forward pass computes in.
        seed: what the views follow from.
        views: how many there are of each image that is varied.
        epochs: how often the data is gone through; `None` for often enough. What is not read again is not kept.
        on_progress: told how many items have been gone through, and of how many.

    Returns:
        The feeds, and what to say of them.

    Raises:
        DataError: if an item cannot be read.
    """
    by_encoder: dict[Encoder, list[int]] = {}
    for number, feed in enumerate(feeds):
        by_encoder.setdefault(feed.encoder, []).append(number)
    cached = Cached(list(feeds), [])
    for encoder, columns in by_encoder.items():
        live = [feed for feed in map(feeds.__getitem__, columns) if isinstance(feed, ColumnFeed)]
        if len(live) < len(columns):
            continue
        modality = data.columns[columns[0]].modality
        tower = model.tower(modality, data.sides[columns[0]])
        name = f"what {tower.info.name} makes of {PLURAL[modality]}"
        wanted = Views(views, seed)
        try:
            probe = Probe(live[0], _probed(live), model.device)
            boundary = find_boundary(encoder, frozen, probe, dtype)
            if boundary is None:
                continue
            store = Store(folder / boundary.fingerprint(*_architecture(tower, encoder, boundary), str(dtype))[:32])
            filling = Filling(store, boundary, wanted, model.device, dtype, _counting(live, on_progress))
            with evaluating(encoder):
                _check_worth(filling, probe, live, epochs)
                records = filling.columns(live)
        except NotCachedError as reason:
            cached.said.append(f"{name} is not cached: {reason}")
        except UnwritableError as reason:
            logger.warning("%s is not cached, but computed in every step: %s", name, reason)
            cached.said.append(f"{name} is not cached: {reason}")
        else:
            for number, feed, own in zip(columns, live, records, strict=True):
                cached.feeds[number] = CachedFeed(feed, boundary, own)
            cached.said.append(_sentence(filling, records, modality))
    return cached


def _architecture(tower: Tower, encoder: Encoder, boundary: Boundary) -> tuple[object, ...]:
    """What weights do not tell of a network."""
    pooling = (tower.pooling, sorted(tower.pooling_options.items())) if boundary.pooled else ()
    return tower.info.full_name, repr(encoder.extractor), *pooling


def _probed(feeds: Sequence[ColumnFeed]) -> list[Prepared]:
    """Some items from all over the data, unvaried."""
    prepared: list[Prepared] = []
    for feed in feeds:
        rows = np.unique(np.linspace(0, len(feed.column) - 1, _PROBED // len(feeds)).astype(np.int64))
        if feed.column.modality == "image":
            rows = rows[:8]  # which are all of one size, and take longer to read
        prepared += feed.preprocess.prepare(feed.column.take(rows))
    return prepared


def _check_worth(filling: Filling, probe: Probe, feeds: Sequence[ColumnFeed], epochs: int | None) -> None:
    """Whether what is kept is read often enough, and has room.

    Raises:
        NotCachedError: if not.
    """
    views = max(map(filling.views.number, feeds))
    if epochs is not None and epochs <= views:
        kept = f"{views} views of each item" if views > 1 else "each item"
        raise NotCachedError(f"to compute {kept} once costs as much as training in {epochs} epochs does")
    batch, lengths = probe.batch(probe.prepared[:1])
    with torch.inference_mode(), autocast(probe.device, filling.dtype):
        (record,) = filling.boundary.compute(batch, lengths)
    layout = filling.boundary.layout
    # Of an image there are more tokens than the one that it counts for.
    share = layout.tokens(record) / lengths[0] * float(np.mean([*map(probe.feed.length, probe.prepared)]))
    size = layout.fixed + layout.per_token * share
    items = sum(len(first_rows(feed.column.identities)) * filling.views.number(feed) for feed in feeds)
    needed = int(size * max(0, items - len(filling.store)))
    folder = filling.store.folder
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if needed + _SPARE > free:
        raise NotCachedError(f"it would take {_in_words(needed)}, and the disk of {there} has {_in_words(free)} free")


def _counting(feeds: Sequence[ColumnFeed], on_progress: Callable[[int, int], None]) -> Callable[[int], None]:
    items, done = sum(len(first_rows(feed.column.identities)) for feed in feeds), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_progress(done, items)

    return count


def _sentence(filling: Filling, records: Sequence[Records], modality: Modality) -> str:
    views = max(own.views for own in records)
    of_each = f", {views} views of each" if views > 1 else ""
    found = f"; {filling.found:,} were there already" if filling.found else ""
    return (
        f"{filling.boundary.what} of {PLURAL[modality]}{of_each}: {filling.computed:,} computed, "
        f"{_in_words(filling.size)}{found}"
    )


def _in_words(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
