"""Cells of a table that stay where they lie, in a file that is mapped into memory, until they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

# How many cells are made into Python's objects at a time where all are looked at.
_AT_ONCE = 65_536


class ArrowCells:
    """A column of an Arrow table, or some rows of it.

    Args:
        cells: the column.
        rows: which of its rows, int64; all where not given.
    """

    def __init__(self, cells: pa.ChunkedArray, rows: np.ndarray | None = None) -> None:
        self._cells, self._rows = cells, rows

    def __len__(self) -> int:
        return len(self._cells if self._rows is None else self._rows)

    def __getitem__(self, row: int) -> object:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.take([row % len(self)])[0]

    def __iter__(self) -> Iterator[object]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.take(range(start, min(start + _AT_ONCE, len(self))))

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The cells of some rows, in the order asked for."""
        if isinstance(rows, range) and rows.step == 1 and self._rows is None:
            found = self._cells.slice(rows.start, len(rows)).to_pylist()
        else:
            wanted = np.asarray(rows, dtype=np.int64)
            own = wanted if self._rows is None else self._rows[wanted]
            # Arrow's own `take` would first join all chunks of the column.
            found = [self._cells[row].as_py() for row in own.tolist()]
        return [_image(cell) if isinstance(cell, dict) else cell for cell in found]

    def select(self, rows: Sequence[int] | np.ndarray) -> ArrowCells:
        """The cells of some rows; nothing is read yet."""
        wanted = np.asarray(rows, dtype=np.int64)
        return ArrowCells(self._cells, wanted if self._rows is None else self._rows[wanted])

    def identities(self) -> np.ndarray:
        """A number for each cell, int64 (N,), equal where cells are equal, in the order of first appearance.

        Cells are compared by 64 bits of their hash, so that they need not all be in memory.
        """
        hashes = np.fromiter((hash(_hashable(cell)) for cell in self), np.int64, len(self))
        distinct, first, common = np.unique(hashes, return_index=True, return_inverse=True)
        rank = np.empty(len(distinct), np.int64)
        rank[np.argsort(first)] = np.arange(len(distinct))
        numbers: np.ndarray = rank[common]
        return numbers


def _image(cell: dict[str, object]) -> object:
    """An image as data sets of Hugging Face keep it, by its bytes or its path; any other structure as it is."""
    if cell.keys() != {"bytes", "path"}:
        return cell
    return cell["path"] if cell["bytes"] is None else cell["bytes"]


def _hashable(cell: object) -> object:
    return repr(cell) if isinstance(cell, list | dict) else cell
