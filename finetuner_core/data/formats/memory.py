"""Data that is in memory: frames, Arrow tables, data sets of Hugging Face's library, rows, columns."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuner_core.data.dataset import Cells
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError
from finetuner_core.values import listed, quote


def read(data: Any) -> Table | None:
    """The table that an object is; None where it is none.

    Args:
        data: a `pandas.DataFrame`; a `datasets.Dataset`; a table of Arrow, or of any library that hands its tables on
            as Arrow's; a mapping of a list or an array for each column; or a sequence of a mapping for each row.

    Raises:
        DataError: if it is empty, or its rows or columns do not go together.
    """
    if _is(data, "datasets", "DatasetDict", "IterableDatasetDict", "Dataset", "IterableDataset"):
        from finetuner_core.data.formats.columnar import read_dataset

        return read_dataset(data, "the data set")
    if _is(data, "pandas", "DataFrame"):
        return _of_columns("the frame", [(name, data.iloc[:, place]) for place, name in enumerate(data.columns)])
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return _of_arrow(data)
    if isinstance(data, Mapping):
        return _of_columns("the data", [*data.items()])
    if isinstance(data, list | tuple) and all(isinstance(row, Mapping) for row in data[:1]):
        return _of_rows("the data", data)
    return None


def _is(data: Any, library: str, *names: str) -> bool:
    """Whether an object is of a class of a library: of one that is not imported there are no objects."""
    module = sys.modules.get(library)
    return isinstance(data, tuple(kind for name in names if (kind := getattr(module, name, None)) is not None))


def _of_arrow(data: Any) -> Table:
    import pyarrow as pa

    from finetuner_core.data.formats.columnar import table_of

    try:
        table = pa.table(data)
    except Exception as error:  # of Arrow, or of the library whose table it is
        raise DataError(f"The data is a {type(data).__name__} that is no table: {error}") from None
    return table_of(table, Path("the data"))


def _of_rows(source: str, rows: Sequence[Any]) -> Table:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{source}, row {number} is {quote(row)}, and no mapping of a name to each cell.")
        if row.keys() != rows[0].keys():
            names, first = (", ".join(map(str, each)) or "none" for each in (row, rows[0]))
            raise DataError(f"{source}, row {number} has the keys {names}, where the first row has {first}.")
    if not rows:
        raise DataError(f"{source} has no rows.")
    return _of_columns(source, [(name, [row[name] for row in rows]) for name in rows[0]])


def _of_columns(source: str, given: Sequence[tuple[object, Any]]) -> Table:
    columns: dict[str, Sequence[object] | Cells | np.ndarray] = {}
    for header, cells in given:
        name = str(header)
        if name in columns:
            raise DataError(f"{source} has two columns {quote(name)}.")
        columns[name] = _of_cells(f"{source}: the column {quote(name)}", cells)
    if not columns:
        raise DataError(f"{source} has no columns.")
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len({*lengths.values()}) > 1:
        shown = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise DataError(f"{source} has columns of different lengths: {shown}.")
    if not max(lengths.values()):
        raise DataError(f"{source} has columns ({listed(columns)}) and no rows.")
    return Table(Path(source), columns)


def _of_cells(column: str, cells: Any) -> Sequence[object] | Cells | np.ndarray:
    """Lists stay lists, and arrays of anything but objects stay arrays."""
    if isinstance(cells, Cells):
        return cells
    if _is(cells, "pandas", "Series"):
        texts = cells.astype(str) if cells.dtype.kind in "mM" else cells
        filled: list[object] = texts.astype(object).where(cells.notna(), None).tolist()
        return filled
    if _is(cells, "pyarrow", "Array", "ChunkedArray"):
        import pyarrow as pa

        from finetuner_core.data.formats.arrow import columns_of

        return columns_of(pa.table({"cells": cells}))["cells"]
    if isinstance(cells, Sequence) and not isinstance(cells, str | bytes):
        return list(cells)
    if not hasattr(cells, "__array__"):
        raise DataError(f"{column} is of type {type(cells).__name__}. Give a list or an array.")
    try:
        array = np.asarray(cells)
    except Exception as error:  # a tensor on a device, or one that has a graph
        raise DataError(f"{column} is a {type(cells).__name__} that is no array: {error}") from None
    if array.ndim == 0:
        raise DataError(f"{column} is the single {quote(array)}. Give a list or an array.")
    if array.dtype.kind in "mM":
        array = array.astype(str)
    return array.tolist() if array.dtype.kind == "O" else array
