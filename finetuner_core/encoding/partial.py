"""The vectors that a run has written so far, beside their place, so that the same command goes on where it was."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from finetuner_core.encoding.fingerprint import differences
from finetuner_core.encoding.output import ranges_beside, write_parquet
from finetuner_core.errors import FolderError


class Partial:
    """A folder with an `.npy` file of its whole size, and a small file with what is written of it, and its checksums.

    The space is taken at the start, so that a disk that is too small is known before the work. Rows are then written at
    their place, not through a memory map: on a full disk a map ends the process, and its pages count as memory. They
    are kept where the process ends in whatever way. Where the machine does, the checksums tell which of them reached
    the disk, without waiting for it after each block.

    Args:
        out: where the vectors will lie.
        shape: rows, and numbers in each.
        dtype: of the numbers.
        made_from: what the vectors follow from: of each thing how it is said, and what has to be equal.

    Attributes:
        is_placed: whether the file is in its place already, and all that was missing is to remove the folder.

    Raises:
        FolderError: if the folder holds the vectors of something else, or something else than vectors.
        OSError: if the disk refuses.
    """

    def __init__(
        self, out: Path, shape: tuple[int, int], dtype: type[np.generic], made_from: Mapping[str, tuple[str, str]]
    ) -> None:
        self.out, self.folder = out, out.with_name(f".{out.name}.partial")
        self.vectors, self.ranges = self.folder / "vectors.npy", self.folder / "ranges.npy"
        self._progress = self.folder / "progress.json"
        self._made_from = {name: [said, content] for name, (said, content) in made_from.items()}
        self._header = _header(shape, np.dtype(dtype))
        self._row = shape[1] * np.dtype(dtype).itemsize
        self._size = len(self._header) + shape[0] * self._row
        self._blocks: list[tuple[int, int, int]] = []  # of each its rows, how many were cut, its checksum
        before = self._read()
        if before is not None and (changed := differences(before["made_from"], made_from)):
            raise FolderError(
                f"{self.folder} holds the beginning of other vectors: {', '.join(changed)}.\n"
                "Go on as they were begun, or remove that folder to begin anew."
            )
        blocks = [] if before is None else [(rows, cut, checksum) for rows, cut, checksum in before["blocks"]]
        # Of all files the vectors are put in their place last.
        is_done = sum(rows for rows, _, _ in blocks) == shape[0] and not self.vectors.exists()
        self.is_placed = is_done and out.is_file() and out.stat().st_size == self._size
        if self.is_placed:
            self._blocks = blocks
        elif before is not None and self._is_laid_out():
            self._blocks = self._whole(blocks)
        else:
            self._begin()

    @property
    def rows(self) -> int:
        """How many rows are written."""
        return sum(rows for rows, _, _ in self._blocks)

    @property
    def cut(self) -> int:
        """How many of their texts were cut."""
        return sum(cut for _, cut, _ in self._blocks)

    def append(self, block: np.ndarray, cut: int) -> None:
        """Writes the next rows."""
        content = np.ascontiguousarray(block).data
        with self.vectors.open("r+b") as stream:
            stream.seek(len(self._header) + self.rows * self._row)
            stream.write(content)
        self._record([*self._blocks, (len(block), cut, zlib.crc32(content))])

    def write_ranges(self, ranges: np.ndarray) -> None:
        """Keeps the ranges that the rows are quantised by."""
        stream = io.BytesIO()
        np.save(stream, ranges)
        self.ranges.write_bytes(stream.getvalue())
        _sync(self.ranges)

    def place(self) -> None:
        """Brings the vectors, and their ranges, into their place, and removes the folder."""
        if not self.is_placed:
            whole = self.vectors
            if self.out.suffix == ".parquet":
                whole = self.folder / "vectors.parquet"
                try:
                    write_parquet(self.vectors, whole)
                except OSError:
                    whole.unlink(missing_ok=True)  # which may be what fills the disk
                    raise
            _sync(whole)
            if self.ranges.exists():
                self.ranges.replace(ranges_beside(self.out))
            whole.replace(self.out)
        self.remove()

    def remove(self) -> None:
        """Removes the folder and all that is in it."""
        shutil.rmtree(self.folder)

    def _read(self) -> dict[str, Any] | None:
        """What the last run has left, if that can be read."""
        try:
            before = json.loads(self._progress.read_text("utf-8"))
            return before if before.keys() == {"made_from", "blocks"} else None
        except (OSError, ValueError, AttributeError):
            return None

    def _is_laid_out(self) -> bool:
        """Whether the vectors' file has its size and its header."""
        if not self.vectors.is_file() or self.vectors.stat().st_size != self._size:
            return False
        with self.vectors.open("rb") as stream:
            return stream.read(len(self._header)) == self._header

    def _whole(self, blocks: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """The blocks up to the first that is not on the disk as it was written."""
        with self.vectors.open("rb") as stream:
            stream.seek(len(self._header))
            good = (zlib.crc32(stream.read(rows * self._row)) == checksum for rows, _, checksum in blocks)
            return list(blocks[: sum(takewhile(bool, good))])

    def _begin(self) -> None:
        own = ("vectors.npy", "vectors.parquet", "ranges.npy", "progress.json", "progress.json.new")
        strange = [path.name for path in self.folder.iterdir() if path.name not in own] if self.folder.exists() else []
        if strange:
            raise FolderError(f"{self.folder} is where vectors are kept, and holds {strange[0]}.\nMove it away.")
        self.folder.mkdir(exist_ok=True)
        try:
            with self.vectors.open("wb") as stream:
                stream.write(self._header)
                _reserve(stream, self._size)
            self._record([])
        except OSError:
            self.remove()
            raise

    def _record(self, blocks: list[tuple[int, int, int]]) -> None:
        scratch = self._progress.with_name(f"{self._progress.name}.new")
        scratch.write_text(json.dumps({"made_from": self._made_from, "blocks": blocks}), "utf-8")
        scratch.replace(self._progress)
        self._blocks = blocks


def _header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """What stands before the numbers in an `.npy` file."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _reserve(stream: BinaryIO, size: int) -> None:
    """Takes the space of a file."""
    stream.flush()
    allocate = getattr(os, "posix_fallocate", None)  # not on macOS and Windows
    try:
        if allocate is not None:
            allocate(stream.fileno(), 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of a file system that cannot
            raise
    if shutil.disk_usage(Path(stream.name).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    stream.truncate(size)


def _sync(file: Path) -> None:
    """Waits until a file is on the disk."""
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())
