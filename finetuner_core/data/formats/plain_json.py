"""JSON Lines of which each line holds one object of known types: Arrow reads them several times faster than Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.types as kinds

from finetuner_core.data.formats.spool import spool
from finetuner_core.data.formats.text import LONGEST_LINE

_BLOCK = 1 << 22

_OPEN, _CLOSE = b"{}"

# Whole numbers below it are kept exactly among decimal ones.
_EXACT = 2.0**53

_KNOWN = frozenset({pa.string(), pa.int64(), pa.float64(), pa.bool_()})


class _NotPlainError(Exception):
    """Something that Arrow makes something else of than Python does."""


def read_plain(path: Path, schema: pa.Schema) -> pa.Table | None:
    """The objects of a file, mapped into memory; None where it has to be read line by line to know what is in it.

    Of what it is given here Arrow makes what Python makes of it. It would also make something of NaN, of two objects on
    one line, or of one on two, and it does not survive a line that is `null`: such files are not given to it.

    Args:
        path: a file in UTF-8 that is not packed.
        schema: the keys and their types, texts, numbers, truth values or lists of one of these.
    """
    if not all((kind.value_type if kinds.is_list(kind) else kind) in _KNOWN for kind in schema.types):
        return None
    objects = _count(path)
    if objects is None:
        return None
    reading = pa.json.ReadOptions(use_threads=False, block_size=_BLOCK)
    parsing = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        with pa.json.open_json(path, reading, parsing) as reader:
            table = spool(schema, _same(reader, schema))
    except (pa.ArrowException, _NotPlainError):  # a key or a type that is new, a letter that is none, a longer line
        return None
    return table if len(table) == objects else None


def _count(path: Path) -> int | None:
    """How many lines begin and end as an object does; None where any other does not."""
    objects = 0
    with path.open("rb") as stream:
        for line in iter(partial(stream.readline, LONGEST_LINE), b""):
            text = line.rstrip(b"\r\n")
            if not text:
                continue
            if text[0] != _OPEN or text[-1] != _CLOSE or b"\r" in text or b"\0" in text:
                return None
            objects += 1
    return objects


def _same(batches: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        if batch.schema != schema:
            raise _NotPlainError
        for column in batch.columns:
            numbers = column.flatten() if kinds.is_list(column.type) else column
            if kinds.is_floating(numbers.type) and pc.all(pc.less(pc.abs(numbers), _EXACT)).as_py() is False:
                raise _NotPlainError
        yield batch
