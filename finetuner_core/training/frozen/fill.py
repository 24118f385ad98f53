"""Computes what is not in the store yet: each different item once, in chunks of like length."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from finetuner_core.data.ahead import prepare_ahead
from finetuner_core.data.augment import augment
from finetuner_core.interfaces import Batch, ImagePreprocess, Prepared
from finetuner_core.modeling.embed import Limit, chunks, tokens_at_once
from finetuner_core.training.feed import ColumnFeed
from finetuner_core.training.frozen.boundary import Boundary
from finetuner_core.training.frozen.cut import autocast
from finetuner_core.training.frozen.store import KEY_BYTES, Records, Segment, Store

# Items are prepared this many at a time: texts so many that there are some of like length, images no more than fit into
# tens of megabytes.
_TEXTS, _IMAGES = 1024, 128

# Preparing goes on in this many threads while the network computes.
_WORKERS = 2


@dataclass(frozen=True)
class Views:
    """How often an image is varied at random, where it is.

    The random numbers of a view follow from the seed, the number of the view, and the image as the network would see it
    unvaried: so a kept cache is found again, whatever else is in the data, and equal images have equal views.

    Args:
        count: how many of each image there are.
        seed: what the random numbers follow from.
    """

    count: int
    seed: int

    def number(self, feed: ColumnFeed) -> int:
        """How many views a column's items have."""
        return self.count if feed.column.modality == "image" and feed.mirror is not None else 1

    def of(self, feed: ColumnFeed, prepared: Prepared, key: bytes) -> list[Prepared]:
        """The views of an unvaried item, whose key is given."""
        if feed.column.modality != "image" or feed.mirror is None:
            return [prepared]
        size = cast("ImagePreprocess", feed.preprocess).image_size
        varied: list[Prepared] = []
        for view in range(self.count):
            digest = hashlib.blake2b(f"{self.seed} {view} ".encode() + key, digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            varied += augment([prepared], size, generator, mirror=feed.mirror)
        return varied


@dataclass
class Filling:
    """Fills a store with a record of every view of every item.

    Args:
        store: what it has is not computed.
        boundary: makes the records. Its network is in evaluation mode.
        views: how often each item is varied.
        device: where the network is.
        dtype: what it computes in.
        on_items: told how many more items have been gone through.
    """

    store: Store
    boundary: Boundary
    views: Views
    device: torch.device
    dtype: torch.dtype
    on_items: Callable[[int], None]
    computed: int = 0
    found: int = 0
    size: int = 0

    def columns(self, feeds: Sequence[ColumnFeed]) -> list[Records]:
        """The records of columns that one encoder reads.

        Raises:
            UnwritableError: if the disk refuses. What was there before is as it was.
            NotCachedError: if an item does not fit into the boundary's layout.
        """
        with Segment(self.store) as segment:
            keys = [self._column(feed, segment) for feed in feeds]
        records = [
            Records(self.store, own, item_of_row(feed.column.identities)) for own, feed in zip(keys, feeds, strict=True)
        ]
        self.store.places.clear()  # of a million records 200 MB, and none is looked for by its key any more
        return records

    def _column(self, live: ColumnFeed, segment: Segment) -> list[list[bytes]]:
        """For each view the key of each different item of a column."""
        plain = ColumnFeed(live.column, live.preprocess, live.encoder, None)

        def prepare(window: np.ndarray) -> list[list[tuple[bytes, Prepared]]]:
            made = []
            for item in plain.prepare(window, torch.Generator()):
                key = key_of(plain.collate([item]))
                views = self.views.of(live, item, key)
                made.append([(key if view is item else key_of(plain.collate([view])), view) for view in views])
            return made

        rows = first_rows(live.column.identities)
        views = self.views.number(live)
        at_once = max(1, _IMAGES // views) if live.column.modality == "image" else _TEXTS
        windows = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
        keys: list[list[bytes]] = [[] for _ in range(views)]
        with closing(prepare_ahead(windows, prepare, workers=_WORKERS)) as ready:
            for window in ready:
                new: dict[bytes, Prepared] = {}
                for item in window:
                    for view, (key, prepared) in enumerate(item):
                        keys[view].append(key)
                        self.found += key in self.store.places
                        if key not in self.store.places and key not in segment.keys:
                            new[key] = prepared
                self._compute(plain, new, segment)
                self.on_items(len(window))
        return keys

    def _compute(self, feed: ColumnFeed, new: Mapping[bytes, Prepared], segment: Segment) -> None:
        keys, prepared = list(new), list(new.values())
        for chunk in chunks(feed.encoder, feed, prepared, Limit(tokens_at_once(self.device))):
            items = [prepared[number] for number in chunk]
            batch = {name: t.to(self.device, non_blocking=True) for name, t in feed.collate(items).items()}
            with torch.inference_mode(), autocast(self.device, self.dtype):
                records = self.boundary.compute(batch, [feed.length(item) for item in items])
            for number, record in zip(chunk, records, strict=True):
                segment.add(keys[number], record)
                self.size += len(record)
        self.computed += len(new)


def key_of(batch: Batch) -> bytes:
    """By what the record of an item is found: a hash of exactly what the network is fed of it, and of nothing else."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for name, tensor in sorted(batch.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def first_rows(identities: np.ndarray) -> np.ndarray:
    """The first row of each different item, ascending."""
    return np.sort(np.unique(identities, return_index=True)[1])


def item_of_row(identities: np.ndarray) -> np.ndarray:
    """For each row the number of its item among `first_rows`, int64 (N,)."""
    _, first, inverse = np.unique(identities, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]
