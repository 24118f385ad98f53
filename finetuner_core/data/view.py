"""Columns of a table as they are looked through: row by row, lists in cells spread out, what is wrong noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from finetuner_core.data.dataset import Cells, Column
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError

Read: TypeAlias = Sequence[object] | Cells | np.ndarray

# How many cells are in memory at once where all of them are looked at.
AT_ONCE = 65_536

LISTS = (list, tuple, np.ndarray)


@dataclass
class Faults:
    """The rows of a table that cannot be used, and why the first of them.

    Args:
        where: says where a row stands.
    """

    where: Callable[[int], str]
    rows: set[int] = field(default_factory=set)
    first: int = -1
    reason: str = ""

    def add(self, row: int, reason: str) -> None:
        """Notes a row and what is wrong with it."""
        if not self.rows or row < self.first:
            self.first, self.reason = row, reason
        self.rows.add(row)

    def refuse(self, count: int, cure: str = "Mend or remove it, or go on without: --skip-bad-items") -> None:
        """Raises the first, with how many there are of so many rows, and what to do.

        Raises:
            DataError: if there is any.
        """
        if self.rows:
            more = f" ({len(self.rows):,} of {count:,} rows cannot be used)" if len(self.rows) > 1 else ""
            raise DataError(f"{self.where(self.first)}: {self.reason}{more}\n{cure}")


@dataclass(frozen=True)
class View:
    """Some columns of a table, in which a row may stand several times.

    Args:
        columns: the cells, by header.
        base: the folder that paths are relative to.
        where: says where a row stands.
        source: where it came from, for messages.
    """

    columns: Mapping[str, Read]
    base: Path
    where: Callable[[int], str]
    source: str

    @classmethod
    def of(cls, table: Table) -> View:
        """A table as it is."""
        source = Path(table.source)
        return cls(table.columns, source if source.is_dir() else source.parent, table.where, str(table.source))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def chunks(cells: Read) -> Iterator[tuple[int, Sequence[object]]]:
    """All cells, some at a time, each time with the number of the first row."""
    lazy = cells if isinstance(cells, Cells) else None
    for start in range(0, len(cells), AT_ONCE):
        stop = min(start + AT_ONCE, len(cells))
        yield start, cast("Sequence[object]", cells)[start:stop] if lazy is None else lazy.take(range(start, stop))


def is_missing(cell: object) -> bool:
    """Whether nothing stands in a cell: null, NaN, or no letter."""
    return (
        cell is None
        or (isinstance(cell, str) and not cell.strip())
        or (isinstance(cell, (float, np.floating)) and cell != cell)
    )


def first_cell(cells: Read) -> object:
    return next((cell for _, part in chunks(cells) for cell in part if not is_missing(cell)), None)


def is_list(cells: Read, *, deep: bool = False) -> bool:
    """Whether the first cell that is not missing holds a list, or a list of lists."""
    first = first_cell(cells)
    return isinstance(first, LISTS) and (not deep or (len(first) > 0 and isinstance(first[0], LISTS)))


def list_width(cells: Read) -> int | None:
    first = first_cell(cells)
    return len(first) if isinstance(first, LISTS) else None


def explode(view: View, header: str) -> View:
    """The table with one row for each item of the lists in a column; the other columns are repeated."""
    rows: list[int] = []
    flat: list[object] = []
    for start, part in chunks(view.columns[header]):
        for row, cell in enumerate(part, start):
            # A cell without items stays, to be refused with its row.
            items = list(cell) if isinstance(cell, LISTS) and len(cell) else [None if isinstance(cell, LISTS) else cell]
            flat += items
            rows += [row] * len(items)
    origin = np.asarray(rows, np.int64)
    columns = {
        name: flat if name == header else Column(name, "text", cells).select(origin).items
        for name, cells in view.columns.items()
    }
    return View(columns, view.base, lambda row: view.where(int(origin[row])), view.source)


def widen(view: View, header: str, faults: Faults) -> tuple[View, list[str]]:
    """The table with a column for each place of the lists in a column, all of which are of one length."""
    cells = view.columns[header]
    width = list_width(cells) or 1
    wide: list[list[object]] = [[] for _ in range(width)]
    for start, part in chunks(cells):
        for row, cell in enumerate(part, start):
            items = list(cell) if isinstance(cell, LISTS) else [cell]
            if is_missing(cell) or len(items) != width:
                what = "nothing" if is_missing(cell) else f"a list of {len(items)}"
                faults.add(row, f"{header} holds {what} where the first row has a list of {width}.")
                items = [None] * width
            for column, item in zip(wide, items, strict=True):
                column.append(item)
    names = [f"{header}[{place}]" for place in range(1, width + 1)]
    columns = {**view.columns, **dict(zip(names, wide, strict=True))}
    return View(columns, view.base, view.where, view.source), names
