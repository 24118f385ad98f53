"""Parquet, Arrow and Feather, and the data sets of Hugging Face's library, which are Arrow as well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from finetuner_core.data.dataset import Cells
from finetuner_core.data.formats.arrow import columns_of
from finetuner_core.data.formats.spool import spool
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError
from finetuner_core.untrusted import read_json
from finetuner_core.values import listed, quote

# So many rows of a Parquet file are unpacked at a time, or fewer that have so many bytes.
_ROWS, _BYTES = 4096, 1 << 24

# Bytes that any file's rows may have once they are unpacked; beyond, a thousand times its own.
_UNPACKED, _RATIO = 1 << 30, 1000

# Where pandas keeps the names of rows.
_INDEX = re.compile(r"__index_level_\d+__")


def read_parquet(path: Path) -> Table:
    """Reads a Parquet file, of whatever size, a few rows at a time.

    Raises:
        DataError: if it is damaged, cut short or empty.
    """
    import pyarrow.parquet as pq

    with _reading(path, "Parquet"), pq.ParquetFile(path, memory_map=True) as file:
        groups = [file.metadata.row_group(place).total_byte_size for place in range(file.num_row_groups)]
        rows = file.metadata.num_rows * _BYTES // max(1, sum(groups))
        batches = file.iter_batches(max(1, min(_ROWS, rows)))
        return table_of(_spool(file.schema_arrow, _bounded(path, _checked(batches))), path)


def read_arrow(path: Path) -> Table:
    """Reads an Arrow file or stream, or Feather. What is not packed stays where it is, mapped into memory.

    Raises:
        DataError: if it is damaged, cut short or empty.
    """
    return table_of(_map(path), path)


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of Hugging Face's library."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_saved_dataset(folder: Path) -> Table:
    """Reads a folder that `Dataset.save_to_disk` wrote. The library itself is not needed.

    Raises:
        DataError: if it holds several splits, or files are damaged or not there.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = [str(split) for split in _described(folder, "dataset_dict.json", "splits")]
        return read_saved_dataset(folder / Path(_only(splits, str(folder), f"{folder}/{{}}")).name)
    # Only what is in the folder itself.
    with _reading(folder / "state.json", "what save_to_disk writes"):
        shards = [folder / Path(shard["filename"]).name for shard in _described(folder, "state.json", "_data_files")]
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        raise DataError(f"{folder} is not whole: there is no {quote(missing.name)}.")
    if not shards:
        raise DataError(f"{folder} has no rows.")
    tables = [_map(shard) for shard in shards]
    with _reading(folder, "a saved data set"):
        table = pa.concat_tables(tables)
    return table_of(table, folder)


def _described(folder: Path, file: str, what: str) -> list[Any]:
    with _reading(folder / file, "what save_to_disk writes"):
        return list(read_json(folder / file)[what])


def read_named(name: str) -> Table:
    """Reads a data set by its name, from wherever Hugging Face's library has it.

    Args:
        name: `datasets:NAME`, `datasets:NAME:SPLIT` or `datasets:NAME:CONFIGURATION:SPLIT`.

    Raises:
        DataError: if the library is not there or does not get it, or it has several splits.
    """
    parts = name.split(":")[1:]
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise DataError(f"{quote(name)} is no data set.\nA name is datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT")
    try:
        import datasets
    except ImportError:
        raise DataError(f"{quote(name)} is read by the library datasets.\nInstall it: pip install datasets") from None
    split = parts[-1] if len(parts) > 1 else None
    config = parts[1] if len(parts) == 3 else None
    try:
        found = datasets.load_dataset(parts[0], config, split=split)
    except Exception as error:  # of the network, of the hub, of files, of names
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"{quote(name)} cannot be loaded: {reason}\n"
            "It is datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT; what was loaded before can be read offline."
        ) from None
    return read_dataset(found, name, f"datasets:{':'.join(parts[:2])}:{{}}")


def read_dataset(dataset: Any, source: str, of_split: str = 'data["{}"]') -> Table:
    """The table of a `datasets.Dataset`, or of a `DatasetDict` with a single split. Nothing is copied.

    Args:
        dataset: what the library gave.
        source: what it is called in messages.
        of_split: how to ask for one of several splits.

    Raises:
        DataError: if it has several splits, or is a stream.
    """
    if isinstance(dataset, dict):
        dataset = dataset[_only(list(dataset), source, of_split)]
    if not hasattr(dataset, "data"):
        raise DataError(f"{source} is of type {type(dataset).__name__}, a stream. Load it without streaming.")
    table = table_of(dataset.data.table, Path(source))
    # Rows that were selected, shuffled or filtered are numbers beside the rows that there were.
    chosen = getattr(dataset, "_indices", None)
    if chosen is None:
        return table
    rows = chosen.column(0).to_numpy().astype(np.int64)
    if not len(rows):
        raise DataError(f"{source} has no rows.")
    columns = {
        name: cells.select(rows) if isinstance(cells, Cells) else np.asarray(cells)[rows]
        for name, cells in table.columns.items()
    }
    return Table(table.source, columns)


def table_of(table: pa.Table, source: Path) -> Table:
    """A table of Arrow as columns.

    Args:
        table: mapped into memory, or in it.
        source: what it is called in messages.

    Raises:
        DataError: if it is empty, or two columns have one name.
    """
    names = [name for name in table.column_names if not _INDEX.fullmatch(name)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has two columns {quote(twice)}.")
    if not names or not table.num_rows:
        columns = f"columns ({listed(names)}) and no rows" if names else "no columns"
        raise DataError(f"{source} has {columns}.")
    with _reading(source, "Arrow"):
        return Table(source, columns_of(pa.table({name: _stored(table.column(name)) for name in names})))


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(_plain(kind)) if isinstance(kind, pa.BaseExtensionType) else column


def _map(path: Path) -> pa.Table:
    """An Arrow file or stream; where it is packed it is unpacked into a temporary file."""
    with _reading(path, "Arrow"):
        source = pa.memory_map(str(path))
        whole = source.read_buffer()
        source.seek(0)
        reader = pa.ipc.open_file(source) if whole[:6].to_pybytes() == b"ARROW1" else pa.ipc.open_stream(source)
        batches = _checked(_batches(reader))
        first = next(batches, None)
        if first is None:
            return reader.schema.empty_table()
        if _is_within(first, whole):
            return pa.Table.from_batches(chain([first], batches))
        return _spool(reader.schema, _bounded(path, chain([first], batches)))


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        return (reader.get_batch(place) for place in range(reader.num_record_batches))
    return iter(reader)


def _is_within(batch: pa.RecordBatch, whole: pa.Buffer) -> bool:
    """Whether cells lie where the file is mapped."""
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None and buffer.size]
    return all(whole.address <= buffer.address < whole.address + whole.size for buffer in buffers)


def _checked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches, each of which can be read to its end: what a damaged file says of its cells may point anywhere."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _bounded(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches up to a size that data have: a file can say of one row that it stands there a billion times."""
    most, size = max(_UNPACKED, _RATIO * path.stat().st_size), 0
    for batch in batches:
        size += batch.nbytes
        if size > most:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes and unpacks to more than {most:,}, as no data do.\n"
                "If they are yours and you have the room, write them as .arrow without compression."
            )
        yield batch


def _spool(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Batches in a temporary file, without dictionaries: those of one batch are not those of the next."""
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])

    def cast(batch: pa.RecordBatch) -> pa.RecordBatch:
        # Arrow breaks some nested columns by casting them to what they are.
        columns = [
            column if column.type == kind else column.cast(kind)
            for column, kind in zip(batch.columns, plain.types, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=plain)

    return spool(plain, map(cast, batches))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of what a column holds, whatever it stands for and however it is packed."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    return _plain(kind.value_type) if kinds.is_dictionary(kind) else kind


def _only(splits: list[str], source: str, of_split: str) -> str:
    """The only one of the splits."""
    if len(splits) == 1:
        return splits[0]
    held = f"has the splits {', '.join(splits)}; which one" if splits else "has no splits"
    ways = f"\nGive one of them: {' or '.join(of_split.format(split) for split in splits)}" if splits else ""
    raise DataError(f"{source} {held}{'?' * bool(splits) or '.'}{ways}")


@contextmanager
def _reading(source: object, what: str) -> Iterator[None]:
    """Whatever a damaged file makes of its reader is an error for people."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Arrow raises many kinds, and what it is given by a damaged file more
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{source} cannot be read as {what}: {reason}.\nIt is damaged, or not whole.") from None
