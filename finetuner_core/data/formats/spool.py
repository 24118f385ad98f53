"""A table of any size in little memory: through a file that nobody else sees, mapped into memory."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from finetuner_core.errors import DataError


def spool(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Writes batches into a temporary file as they come, and maps it into memory.

    What is read of it is the system's to keep or to drop. The file is gone with the process.

    Args:
        schema: of the batches.
        batches: what to keep; whatever making them raises is passed on.

    Raises:
        DataError: if there is no place for the file.
    """
    handle, name = tempfile.mkstemp(prefix="finetuner-", suffix=".arrow")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                _write(writer, batch)
        pa.default_memory_pool().release_unused()
        table = pa.ipc.open_file(pa.memory_map(name)).read_all()
    except BaseException:
        Path(name).unlink()
        raise
    try:
        Path(name).unlink()  # where it is open it can still be read
    except OSError:  # but not on Windows
        atexit.register(Path(name).unlink, missing_ok=True)
    return table


def no_room(error: OSError) -> DataError:
    """What to say where a temporary file cannot be written."""
    return DataError(
        f"The data cannot be laid out in {tempfile.gettempdir()}: {error.strerror or error}.\n"
        "Make room there, or set TMPDIR to a folder that has it."
    )


def _write(writer: pa.ipc.RecordBatchFileWriter, batch: pa.RecordBatch) -> None:
    try:
        writer.write_batch(batch)
    except OSError as error:
        raise no_room(error) from None
