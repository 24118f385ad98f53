"""The file that vectors are written into: numpy's `.npy`, or Parquet."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from finetuner_core.errors import FolderError

SUFFIXES = (".npy", ".parquet")

# The bytes of a row group, and of what is in memory of a file at once.
_GROUP = 1 << 24


def check_out(out: str | Path) -> Path:
    """Whether a file of that name can be written, asked before the work that it would cost.

    Raises:
        FolderError: if its suffix is neither of the two, its folder is not there, or it is a folder.
    """
    file = Path(out).expanduser().absolute()
    if file.suffix not in SUFFIXES:
        raise FolderError(f"{out} must end in {' or '.join(SUFFIXES)}, which say how it is written.")
    if file.is_dir():
        raise FolderError(f"{out} is a folder; the vectors are written into a file.")
    if not file.parent.is_dir():
        raise FolderError(f"{out} cannot be written: there is no folder {file.parent}.")
    if not os.access(file.parent, os.W_OK):
        raise FolderError(f"{out} cannot be written: no right to write in {file.parent}.")
    if file.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow")
        except ModuleNotFoundError:
            raise FolderError(
                f"{out}: .parquet needs pyarrow, which is not installed.\n"
                "Install it: pip install pyarrow, or write .npy."
            ) from None
    return file


def ranges_beside(out: Path) -> Path:
    """Where the ranges of int8 vectors lie.

    >>> ranges_beside(Path("docs.npy")).name
    'docs.ranges.npy'
    """
    return out.with_suffix(".ranges.npy")


def write_parquet(vectors: Path, out: Path) -> None:
    """Writes an `.npy` file as a Parquet file with one column, `vectors`: a list of fixed size for each row.

    Args:
        vectors: the file (N, D), of which no more than a row group is in memory.
        out: where to.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with vectors.open("rb") as stream:
        npy.read_magic(stream)
        (rows, width), _, dtype = npy.read_array_header_1_0(stream)
        kind = pa.list_(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False), width)
        schema = pa.schema([pa.field("vectors", kind, nullable=False)])
        size = max(1, _GROUP // (width * dtype.itemsize))
        # Parquet has numbers of one byte by way of a dictionary alone; of longer ones hardly any are equal. Nobody asks
        # for their least and greatest, and to find these takes three times as long as all the rest.
        options = {"use_dictionary": dtype.itemsize == 1, "compression": "none", "write_statistics": False}
        with pq.ParquetWriter(out, schema, **options) as writer:
            for start in range(0, rows, size):
                numbers = np.fromfile(stream, dtype, min(size, rows - start) * width)
                lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=kind)
                writer.write_table(pa.table([lists], schema=schema))
