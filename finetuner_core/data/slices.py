"""Images that stay within the files that hold many of them, until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class TarSlice:
    """A member of a tar that is not packed.

    Args:
        path: the tar.
        name: of the member.
        offset: where its content begins, in bytes.
        size: of its content, in bytes.
    """

    path: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"

    def read(self) -> bytes:
        """Its content.

        Raises:
            OSError: if the tar is not there, or is shorter than it was.
        """
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        if len(content) < self.size:
            raise OSError("the tar is not whole")
        return content


@dataclass(frozen=True)
class TarCells:
    """A column of members of tars, 40 bytes each beside the names of their samples.

    Args:
        paths: the tars.
        names: of all samples, which other columns have as well.
        extensions: of the members; what follows a sample's name and a dot.
        places: int64 (N, 4): for each cell its tar, its extension, its offset and its size; all -1 where it is missing.
        rows: the sample of each cell, int64 (N,).
    """

    paths: Sequence[Path]
    names: Sequence[str]
    extensions: Sequence[str]
    places: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The members of some rows, `TarSlice` each, in the order asked for; None where one is missing."""
        wanted = np.asarray(rows, dtype=np.int64)
        return [
            None
            if tar < 0
            else TarSlice(self.paths[tar], f"{self.names[row]}.{self.extensions[extension]}", offset, size)
            for row, (tar, extension, offset, size) in zip(
                self.rows[wanted].tolist(), self.places[wanted].tolist(), strict=True
            )
        ]

    def select(self, rows: Sequence[int] | np.ndarray) -> TarCells:
        """The same for many rows: nothing is read yet."""
        wanted = np.asarray(rows, dtype=np.int64)
        return TarCells(self.paths, self.names, self.extensions, self.places[wanted], self.rows[wanted])

    def identities(self) -> np.ndarray:
        """A number for each cell, int64 (N,), equal for one place in one tar, in the order of first appearance."""
        _, first, common = np.unique(self.places[:, [0, 2]], axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        numbers: np.ndarray = rank[common.reshape(-1)]
        return numbers
