"""A file of features that is only ever added to, and read through a memory map."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np

logger = logging.getLogger("finetuner")

VERSION = 1
"""Of the format. What another version has written is not read."""

KEY_BYTES = 16
_ENTRY = np.dtype([("key", f"V{KEY_BYTES}"), ("start", "<i8"), ("size", "<i8")])


class UnwritableError(Exception):
    """The disk does not take what is to be written; the message says why."""

    def __init__(self, folder: Path, error: OSError) -> None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        super().__init__(f"the disk of {folder} is full" if full else f"{folder} cannot be written: {error.strerror}")


class Place(NamedTuple):
    """Where a record lies: in which segment, and its bytes there."""

    segment: int
    start: int
    size: int


class Store:
    """Records by key, in a folder that several runs may share.

    Each run writes its records into a segment of its own, beside its place: the file of its bytes gets its name first,
    and then that of its index, without which a segment is not there. So nothing half-written is ever read, and two runs
    at a time at worst compute the same records twice. Segments are never changed.

    Args:
        folder: where; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[bytes, Place] = {}
        self._maps: list[np.ndarray] = []
        for index in sorted(folder.glob("*.index")):
            self._open(index)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, place: Place) -> np.ndarray:
        """A record, uint8, copied out of the map: what has to be fetched from the disk is fetched here."""
        return np.array(self._maps[place.segment][place.start : place.start + place.size])

    def _open(self, index: Path) -> None:
        try:
            entries = _read_index(index)
            data = index.with_suffix(".features")
            bytes_ = np.memmap(data, np.uint8, "r") if data.stat().st_size else np.empty(0, np.uint8)
            if len(entries) and (int(entries["start"][-1] + entries["size"][-1]) != len(bytes_)):
                raise ValueError(f"{data.name} is not as long as its index says")
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("Features in %s are not used and computed anew: %s.", index, str(error).removesuffix("."))
            return
        number = len(self._maps)
        self._maps.append(bytes_)
        for key, start, size in zip(entries["key"], entries["start"].tolist(), entries["size"].tolist(), strict=True):
            self.places.setdefault(key.tobytes(), Place(number, start, size))


class Segment:
    """Records on their way into a store. Leave it as a context: what was written whole is kept, however it ends.

    Args:
        store: it has the new records when the context is left.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries: list[tuple[bytes, int, int]] = []
        self.keys: set[bytes] = set()
        self._name = uuid.uuid4().hex
        self._file: BinaryIO | None = None
        self._end = 0

    def __enter__(self) -> Segment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._commit(self._file)

    def add(self, key: bytes, record: np.ndarray) -> None:
        """Writes a record.

        Raises:
            UnwritableError: if the disk refuses. Nothing of the segment is kept then.
        """
        try:
            if self._file is None:
                self.store.folder.mkdir(parents=True, exist_ok=True)
                self._file = self._partial(".features").open("wb")
            self._file.write(record.data)
        except OSError as error:
            self._discard()
            raise UnwritableError(self.store.folder, error) from error
        self.entries.append((key, self._end, len(record)))
        self.keys.add(key)
        self._end += len(record)

    def _commit(self, file: BinaryIO) -> None:
        try:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            entries = np.array(self.entries, _ENTRY).tobytes()
            header = {"version": VERSION, "sha256": hashlib.sha256(entries).hexdigest()}
            self._partial(".index").write_bytes(json.dumps(header).encode() + b"\n" + entries)
            for suffix in (".features", ".index"):
                self._partial(suffix).rename(self.store.folder / f"{self._name}{suffix}")
        except OSError as error:
            self._discard()
            raise UnwritableError(self.store.folder, error) from error
        self.store._open(self.store.folder / f"{self._name}.index")

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what was still to be written finds no room either
                self._file.close()
            self._file = None
        for suffix in (".features", ".index"):
            for file in (self._partial(suffix), self.store.folder / f"{self._name}{suffix}"):
                with suppress(OSError):
                    file.unlink()

    def _partial(self, suffix: str) -> Path:
        return self.store.folder / f".{self._name}{suffix}"


class Records:
    """The records of a column's rows, for each of its views.

    Args:
        store: where they are.
        keys: for each view the key of each different item.
        item_of_row: int (N,), which of the items stands in a row.
    """

    def __init__(self, store: Store, keys: Sequence[Sequence[bytes]], item_of_row: np.ndarray) -> None:
        self.store, self.views = store, len(keys)
        self._item_of_row = item_of_row
        # int64 (views, items, 3): a million places are 24 MB, where as many objects would take ten times that.
        self._places = np.array([[store.places[key] for key in own] for own in keys], np.int64)

    def read(self, row: int, view: int) -> np.ndarray:
        """The record of a row, uint8."""
        return self.store.read(Place(*self._places[view, self._item_of_row[row]].tolist()))


def _read_index(file: Path) -> np.ndarray:
    header_line, _, entries = file.read_bytes().partition(b"\n")
    header = json.loads(header_line)
    if not isinstance(header, dict) or "version" not in header:
        raise ValueError(f"{file.name} is damaged")
    if header["version"] != VERSION:
        raise ValueError(f"they were written in format {header['version']}, and this version reads format {VERSION}")
    if hashlib.sha256(entries).hexdigest() != header["sha256"]:
        raise ValueError(f"{file.name} is damaged")
    return np.frombuffer(entries, _ENTRY)
