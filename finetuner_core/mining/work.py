"""What a run has done so far, on disk, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from finetuner_core.errors import FolderError

FORMAT = 1


class Records:
    """An array (N, width) on disk that grows block by block, and is never in memory as a whole.

    How far it has come is its length: what was written of a block when the run was stopped is written again.

    Args:
        path: a file that is there, or will be.
        dtype: of the numbers.
        width: how many make a row.
        block: how many rows are written at a time.
    """

    def __init__(self, path: Path, dtype: type[np.float32 | np.int32], width: int, block: int) -> None:
        self.path, self.dtype, self.width, self.block = path, np.dtype(dtype), width, block
        path.touch()

    def __len__(self) -> int:
        return self.path.stat().st_size // (self.dtype.itemsize * self.width)

    def resume(self, total: int) -> int:
        """How many of so many rows are there, in whole blocks; the rest of a block is cut off."""
        done = len(self) if len(self) == total else len(self) // self.block * self.block
        self.cut(done)
        return done

    def missing(self, total: int) -> Iterator[np.ndarray]:
        """The numbers of the rows that are not there yet, block by block; each has to be written before the next."""
        while (start := len(self)) < total:
            yield np.arange(start, min(start + self.block, total))

    def cut(self, rows: int) -> None:
        """Keeps so many rows."""
        with self.path.open("r+b") as file:
            file.truncate(rows * self.dtype.itemsize * self.width)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows behind the others."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows, in memory; the file is mapped for as long as this takes."""
        mapped = np.memmap(self.path, self.dtype, "r", shape=(len(self), self.width))
        return np.array(mapped[rows])


class Work:
    """A folder beside the file that is to be written, with what a run has done so far.

    Args:
        folder: where; it is made if it is not there.
        made_from: what the content follows from, by name. Where a folder is there that was made from something else,
            it is emptied.

    Attributes:
        changed: what was different then; empty where the folder is new, or goes on.
        goes_on: whether there is something to go on with.

    Raises:
        FolderError: if there is something else there.
    """

    def __init__(self, folder: Path, made_from: Mapping[str, object]) -> None:
        self.folder = folder
        manifest = folder / "manifest.json"
        scratch = manifest.with_suffix(".new")
        now = json.loads(json.dumps({"format": FORMAT, **made_from}))
        try:
            before = json.loads(manifest.read_text("utf-8"))
        except (OSError, ValueError):
            before = None
        self.goes_on = before == now
        self.changed: Sequence[str] = ()
        if isinstance(before, dict) and not self.goes_on:
            self.changed = [name for name in now if before.get(name) != now[name]]
        if not self.goes_on:
            if folder.exists() and not manifest.exists() and {*folder.iterdir()} - {scratch}:
                raise FolderError(f"{folder} is where mining keeps its work, and holds something else.\nMove it away.")
            self.remove()
            folder.mkdir(parents=True)
            scratch.write_text(json.dumps(now, indent=2), "utf-8")
            scratch.replace(manifest)

    def records(self, name: str, dtype: type[np.float32 | np.int32], width: int, block: int) -> Records:
        """An array of the folder."""
        return Records(self.folder / name, dtype, width, block)

    def remove(self) -> None:
        """Removes the folder and all that is in it."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
