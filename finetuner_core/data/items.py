"""Reads cells as items of a modality, as labels or as scores, and notes the rows that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from finetuner_core.data.dataset import Cells, Column
from finetuner_core.data.images import is_url
from finetuner_core.data.tables import IMAGE_SUFFIXES
from finetuner_core.data.view import AT_ONCE, LISTS, Faults, Read, View, chunks, first_cell, is_missing, list_width
from finetuner_core.errors import DataError
from finetuner_core.values import Modality, quote

_NUMBERS = (bool, int, float, np.number, np.bool_)
_LARGEST = float(np.finfo(np.float32).max)


class ImagePaths:
    """Lazy cells of paths, relative to a folder."""

    def __init__(self, cells: Cells, base: Path) -> None:
        self.cells, self.base = cells, base

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        """The images of some rows."""
        return [_located(cell, self.base) for cell in self.cells.take(rows)]

    def select(self, rows: Sequence[int] | np.ndarray) -> ImagePaths:
        """The same for many rows: nothing is read yet."""
        return ImagePaths(self.cells.select(rows), self.base)

    def identities(self) -> np.ndarray:
        """A number for each image, int64 (N,), equal where the paths are equal."""
        return self.cells.identities()


def looks_like(cells: Read, modality: Modality) -> bool:
    """Whether a column can be what a model of a modality takes, by its first cell that is not missing."""
    first = first_cell(cells)
    if modality == "vector":
        return isinstance(first, LISTS) and (len(first) == 0 or not isinstance(first[0], str))
    if modality == "image":
        by_name = isinstance(first, str) and Path(first).suffix.lower() in IMAGE_SUFFIXES
        return by_name or (first is not None and not isinstance(first, (str, *_NUMBERS, *LISTS)))
    return isinstance(first, (str, *_NUMBERS)) or (isinstance(first, LISTS) and not looks_like(cells, "vector"))


def read_column(
    view: View, header: str, modality: Modality, role: str, faults: Faults, *, empty: bool = False
) -> Column:
    """One column as items of a modality.

    Args:
        view: the columns.
        header: which one.
        modality: what its items are.
        role: what it is for, for messages.
        faults: what is wrong is noted here; such a row has something in the column that is not to be used.
        empty: whether a text may be empty.

    Raises:
        DataError: if the whole column is of another kind.
    """
    cells = view.columns[header]
    if modality == "image":
        return Column(header, modality, _read_images(cells, view.base, _named(header, role), faults))
    if modality == "vector":
        return Column(header, modality, _read_vectors(cells, view.source, _named(header, role), faults))
    return Column(header, modality, read_texts(cells, _named(header, role), faults, empty=empty))


def read_texts(cells: Read, name: str, faults: Faults, *, empty: bool = False) -> Read:
    """Texts, or numbers that stand for texts. A column holds the one or the other."""
    of_numbers = isinstance(first_cell(cells), _NUMBERS)
    kinds = _NUMBERS if of_numbers else (str,)
    other = "a text among numbers" if of_numbers else "a number among texts"
    for start, part in chunks(cells):
        for row, cell in enumerate(part, start):
            if isinstance(cell, kinds) and (not is_missing(cell) or (empty and isinstance(cell, str))):
                continue
            if is_missing(cell):
                faults.add(row, f"{name} is empty.")
            elif isinstance(cell, (str, *_NUMBERS)):
                faults.add(row, f"{name} holds {quote(cell)}, {other}.")
            else:
                faults.add(row, f"{name} holds {quote(cell)}, which is no text.")
    if of_numbers or isinstance(cells, np.ndarray):
        return [str(cell) for _, part in chunks(cells) for cell in part]
    return cells


def read_labels(cells: Read, role: str, header: str, source: str, faults: Faults) -> list[str]:
    """Labels without the space around them, each different one once in memory."""
    if getattr(cells, "ndim", 1) != 1:
        raise DataError(f"{source}: {header} must hold one label for each item, not an array of more dimensions.")
    read_texts(cells, _named(header, role), faults)
    known: dict[str, str] = {}
    labels = (str(cell).strip() for _, part in chunks(cells) for cell in part)
    return [known.setdefault(label, label) for label in labels]


def read_scores(view: View, headers: Sequence[str], candidates: int, faults: Faults) -> np.ndarray:
    """A score for each candidate, float32 (N, K).

    One score fewer than candidates are margins of the first over each of the others, as a teacher for MarginMSE gives
    them. They are scores as well: those of the first are 0, and those of the others minus the margin. Whatever compares
    the candidates of a row looks at differences alone.
    """
    if len(headers) == 1 and list_width(view.columns[headers[0]]) is not None:
        columns = _read_vectors(view.columns[headers[0]], view.source, headers[0], faults)
    else:
        columns = np.stack([_read_numbers(view.columns[header], header, faults) for header in headers], axis=1)
    if columns.shape[1] == candidates:
        return columns
    if columns.shape[1] == candidates - 1:
        return np.concatenate([np.zeros_like(columns[:, :1]), -columns], axis=1)
    hold = f"{'holds' if len(headers) == 1 else 'hold'} {columns.shape[1]} score{'s' * (columns.shape[1] > 1)}"
    raise DataError(
        f"{view.source}: {', '.join(headers)} {hold} a row for {candidates} candidates.\n"
        "There is one score for each candidate, or the margin of the first over each other."
    )


def _named(header: str, role: str) -> str:
    if role in ("vectors", "labels"):  # which are named after all of them
        header, role = header.removesuffix("s") if header == role else header, role.removesuffix("s")
    return f"the {role}" if header == role else f"the {role} ({header})"


def _located(cell: object, base: Path) -> object:
    return base / cell if isinstance(cell, str) else cell


def _read_images(cells: Read, base: Path, name: str, faults: Faults) -> Sequence[object] | Cells:
    for start, part in chunks(cells):
        for row, cell in enumerate(part, start):
            if is_missing(cell):
                faults.add(row, f"{name} is empty.")
            elif isinstance(cell, str) and is_url(cell):
                faults.add(row, f"{name} is the URL {quote(cell)}. Images are read from files: download them first.")
            elif isinstance(cell, (*_NUMBERS, *LISTS)):
                faults.add(row, f"{name} holds {quote(cell)}, which is no path of an image.")
    if isinstance(cells, Cells):
        return ImagePaths(cells, base)
    return [_located(cell, base) for cell in cells]


def _read_vectors(cells: Read, source: str, name: str, faults: Faults) -> np.ndarray:
    whole = isinstance(cells, np.ndarray) and cells.dtype != object
    found = cast("np.ndarray", cells) if whole else _stack(cells, name, faults)
    if found.ndim != 2 or found.shape[1] == 0 or found.dtype.kind not in "fiu":
        raise DataError(f"{source}: vectors must be numbers of shape (N, D), not {found.dtype} of shape {found.shape}.")
    with np.errstate(over="ignore"):
        vectors = found.astype(np.float32, copy=False)
    for start in range(0, len(vectors), AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        for row in np.flatnonzero(~np.isfinite(part).all(axis=1)) + start:
            faults.add(int(row), f"{name} holds a NaN or an infinite value.")
    return vectors


def _stack(cells: Read, name: str, faults: Faults) -> np.ndarray:
    """Lists of numbers, all as long as the first, as an array (N, D)."""
    first = first_cell(cells)
    example = np.asarray(first) if isinstance(first, LISTS) and not any(isinstance(x, LISTS) for x in first) else None
    if first is not None and (example is None or example.ndim != 1 or example.dtype.kind not in "fiu"):
        return np.asarray([str(cell) for cell in next(chunks(cells))[1]])  # which are refused by their shape
    if example is None:
        example = np.zeros(1)
    vectors = np.zeros((len(cells), len(example)), np.float32)
    for start, part in chunks(cells):
        for row, cell in enumerate(part, start):
            reason = ""
            if is_missing(cell):
                reason = "is empty."
            elif not isinstance(cell, LISTS):
                reason = f"holds {quote(cell)}, which is no vector."
            elif len(cell) != len(example):
                reason = f"holds {len(cell)} numbers where the first has {len(example)}."
            else:
                try:
                    with np.errstate(over="ignore"):
                        vectors[row] = cell
                except (TypeError, ValueError, OverflowError):
                    reason = f"holds {quote(cell)}, which is no list of numbers."
            if reason:
                faults.add(row, f"{name} {reason}")
    return vectors


def _read_numbers(cells: Read, name: str, faults: Faults) -> np.ndarray:
    """Finite numbers, float32 (N,)."""
    numbers = np.zeros(len(cells), np.float64)
    for start, part in chunks(cells):
        for row, cell in enumerate(part, start):
            try:
                number = float(cast("float", cell)) if isinstance(cell, (str, *_NUMBERS)) else None
            except ValueError:
                number = None
            if is_missing(cell) and not isinstance(cell, (float, np.floating)):
                faults.add(row, f"{name} is empty.")
            elif number is None or not abs(number) <= _LARGEST:
                faults.add(row, f"{name} is {quote(cell)}, which is no finite number.")
            else:
                numbers[row] = number
    return numbers.astype(np.float32)
