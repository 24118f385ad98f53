"""Cells of a table that stay where they lie, in a file that is mapped into memory, until they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

# How many cells are made into Python's objects at a time where all are looked at, and of how many bytes at most.
_AT_ONCE, _BYTES = 65_536, 1 << 24


@runtime_checkable
class Hashed(Protocol):
    """Cells whose hashes say which are equal, also to those of other columns."""

    def hashes(self) -> np.ndarray:
        """The hash of each cell, int64 (N,): that of Python's own, which in each process is another one."""
        ...


class ArrowCells:
    """A column of an Arrow table, or some rows of it.

    Args:
        cells: the column.
        rows: which of its rows, int64; all where not given.
    """

    def __init__(self, cells: pa.ChunkedArray, rows: np.ndarray | None = None) -> None:
        self._cells, self._rows = cells, rows
        self._hashes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._cells if self._rows is None else self._rows)

    def __getitem__(self, row: int) -> object:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.take([row % len(self)])[0]

    def __iter__(self) -> Iterator[object]:
        size = max(1, self._cells.nbytes // max(1, len(self._cells)))
        step = max(1, min(_AT_ONCE, _BYTES // size))
        for start in range(0, len(self), step):
            yield from self.take(range(start, min(start + step, len(self))))

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The cells of some rows, in the order asked for."""
        if isinstance(rows, range) and rows.step == 1 and self._rows is None:
            found = self._cells.slice(rows.start, len(rows)).to_pylist()
        else:
            wanted = np.asarray(rows, dtype=np.int64)
            own = wanted if self._rows is None else self._rows[wanted]
            low, high = (int(own.min()), int(own.max()) + 1) if len(own) else (0, 0)
            if high - low <= 2 * len(own):  # reading a stretch costs a tenth of reading it cell by cell
                near = self._cells.slice(low, high - low).to_pylist()
                found = [near[row] for row in (own - low).tolist()]
            else:
                # Arrow's own `take` would first join all chunks of the column.
                found = [self._cells[row].as_py() for row in own.tolist()]
        return [_image(cell) if isinstance(cell, dict) else cell for cell in found]

    def select(self, rows: Sequence[int] | np.ndarray) -> ArrowCells:
        """The cells of some rows; nothing is read yet."""
        wanted = np.asarray(rows, dtype=np.int64)
        some = ArrowCells(self._cells, wanted if self._rows is None else self._rows[wanted])
        some._hashes = None if self._hashes is None else self._hashes[wanted]
        return some

    def hashes(self) -> np.ndarray:
        """The hash of each cell, int64 (N,): that of Python's own. Computed once."""
        if self._hashes is None:
            nested = self._cells.type.num_fields > 0
            self._hashes = np.fromiter(map(_hash if nested else hash, self), np.int64, len(self))
        return self._hashes

    def identities(self) -> np.ndarray:
        """A number for each cell, int64 (N,), equal where cells are equal, in the order of first appearance.

        Cells are compared by 64 bits of their hash, so that they need not all be in memory.
        """
        return number_hashes(self.hashes()).astype(np.int64)


def number_hashes(hashes: np.ndarray) -> np.ndarray:
    """A number for each hash, int32 (N,), equal where they are equal, in the order of first appearance.

    >>> number_hashes(np.array([70, 30, 70])).tolist()
    [0, 1, 0]
    """
    by_hash = np.argsort(hashes, kind="stable")
    new = np.ones(len(hashes), bool)
    ordered = hashes[by_hash]
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    del ordered
    first = by_hash[new]
    is_first = np.zeros(len(hashes), bool)
    is_first[first] = True
    # The number of each first one is how many stand before it.
    number = (np.cumsum(is_first, dtype=np.int32) - 1)[first]
    numbers = np.empty(len(hashes), np.int32)
    numbers[by_hash] = np.repeat(number, np.diff(np.flatnonzero(new), append=len(hashes)))
    return numbers


def _image(cell: dict[str, object]) -> object:
    """An image as data sets of Hugging Face keep it, by its bytes or its path; any other structure as it is."""
    if cell.keys() != {"bytes", "path"}:
        return cell
    return cell["path"] if cell["bytes"] is None else cell["bytes"]


def _hash(cell: object) -> int:
    return hash(repr(cell) if isinstance(cell, list | dict) else cell)
