"""The columns of an Arrow table as cells."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from finetuner_core.data.cells import ArrowCells
from finetuner_core.data.formats.spool import no_room


def columns_of(table: pa.Table) -> dict[str, Sequence[object] | ArrowCells | np.ndarray]:
    """The cells of each column, by its header.

    Lists of numbers, all of one length, are an array (N, D); dates and decimals are texts.

    Args:
        table: mapped into memory, or in it.
    """
    return {name: _cells(table.column(name)) for name in table.column_names}


def _cells(column: pa.ChunkedArray) -> ArrowCells | np.ndarray:
    kind = column.type
    if kinds.is_temporal(kind) or kinds.is_decimal(kind):
        with contextlib.suppress(pa.ArrowException):  # such as a time zone that this machine does not know
            column = column.cast(pa.string())
        return ArrowCells(column)
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        vectors = _vectors(column)
        if vectors is not None:
            return vectors
    return ArrowCells(column)


def _vectors(column: pa.ChunkedArray) -> np.ndarray | None:
    """Lists of numbers as an array (N, D); None where they are of other things, or not of one length."""
    inner = column.type.value_type
    if not (kinds.is_floating(inner) or kinds.is_integer(inner)) or column.null_count or not len(column):
        return None
    parts: list[np.ndarray] = []
    for chunk in column.chunks:
        numbers = chunk.flatten()
        width, rest = divmod(len(numbers), len(chunk)) if len(chunk) else (0, 0)
        if rest or numbers.null_count:
            return None
        if not kinds.is_fixed_size_list(column.type) and (np.diff(chunk.offsets.to_numpy()) != width).any():
            return None
        if len(chunk):
            parts.append(numbers.to_numpy(zero_copy_only=False).reshape(len(chunk), width))
    if len({part.shape[1] for part in parts}) != 1:
        return None
    # One part is still where the file is mapped.
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays one after the other, in a temporary file that is mapped into memory."""
    try:
        with tempfile.TemporaryFile(prefix="finetuner-") as file:
            for part in parts:
                part.tofile(file)
            return np.memmap(file, parts[0].dtype, "c", shape=(sum(map(len, parts)), parts[0].shape[1]))
    except OSError as error:
        raise no_room(error) from None
