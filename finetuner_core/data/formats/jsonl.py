"""JSON Lines: one object a line, whose keys name the columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.types as kinds

from finetuner_core.data.formats.arrow import columns_of
from finetuner_core.data.formats.plain_json import read_plain
from finetuner_core.data.formats.spool import spool
from finetuner_core.data.formats.text import PACKED, open_text
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError
from finetuner_core.values import quote

# A block ends at so many lines or letters.
_LINES, _LETTERS = 4096, 1 << 22

# More different keys than any table has columns: there the keys are data.
_KEYS = 1000

# A cell may hold several vectors, each a list of numbers.
_DEPTH = 2

# What may stand around a value.
_SPACE = " \t\r\n"

# The lines of a block by number, and what stands on each.
Block = tuple[list[int], list[dict[str, Any]]]


class _OtherTypesError(Exception):
    """A later line has a key or a kind of number that the first lines did not have."""


def read(path: Path, encoding: str | None = None) -> Table:
    """Reads a file whose columns are the keys of all its objects; where an object lacks a key its cell is None.

    A column holds texts, numbers, truth values, or lists of one of these. Whole numbers among decimal ones become
    decimal. An object in a cell is kept as its text, as `{"json": text}`, and is no item.

    Raises:
        DataError: if a line is no object, or a column holds different things; with line, key and value.
    """

    def blocks() -> Iterator[Block]:
        return _blocks(path, encoding)

    def line_of(row: int) -> int:
        return next(islice(_lines(path, encoding), row, None))[0]

    # Most often the first lines tell what all of them hold. Where they don't, the file is read once more.
    types = _learn(path, islice(blocks(), 1))
    if encoding is None and path.suffix.lower() not in PACKED:
        plain = read_plain(path, pa.schema(list(types.items())))
        if plain is not None:
            return Table(path, columns_of(plain), line_of)
    try:
        table = _spool(path, types, blocks())
    except _OtherTypesError:
        types = _learn(path, blocks())
        table = _spool(path, types, blocks())
    return Table(path, columns_of(table), line_of)


def _learn(path: Path, blocks: Iterable[Block]) -> dict[str, pa.DataType]:
    """The type of each column."""
    types: dict[str, pa.DataType] = {}
    some = False
    for block in blocks:
        some = True
        types.update((key, array.type) for key, array in _arrays(path, block, types).items())
    if not types:
        raise DataError(f"{path} {'holds objects without keys' if some else 'is empty'}.")
    return types


def _spool(path: Path, types: Mapping[str, pa.DataType], blocks: Iterable[Block]) -> pa.Table:
    schema = pa.schema(list(types.items()))
    return spool(schema, (_batch(path, schema, types, block) for block in blocks))


def _batch(path: Path, schema: pa.Schema, types: Mapping[str, pa.DataType], block: Block) -> pa.RecordBatch:
    arrays = _arrays(path, block, types)
    if any(types.get(key) != array.type for key, array in arrays.items()):
        raise _OtherTypesError
    empty = len(block[0])
    cells = [arrays[key] if key in arrays else pa.nulls(empty, types[key]) for key in types]
    return pa.record_batch(cells, schema=schema)


def _arrays(path: Path, block: Block, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """The cells of each key that is in a block, of a type that what came before has as well."""
    lines, rows = block
    keys = dict.fromkeys(chain.from_iterable(rows))
    if len(types.keys() | keys) > _KEYS:
        raise DataError(
            f"{path} has more than {_KEYS:,} different keys by line {lines[-1]}.\n"
            'Keys name columns, and are the same on each line: {"text": ..., "label": ...}'
        )
    arrays: dict[str, pa.Array] = {}
    for key in keys:
        if any("\ud800" <= letter <= "\udfff" for letter in key):
            raise DataError(f"{path}: the key {quote(key)} holds half a letter (a lone surrogate).")
        known = types.get(key, pa.null())
        cells = [row.get(key) for row in rows]
        array = _array(cells, known)
        if array is None:
            _refuse(path, key, lines, cells, known)
        arrays[key] = array
    return arrays


def _array(cells: Sequence[Any], known: pa.DataType) -> pa.Array | None:
    """Cells as Arrow has them, of a type that those before have as well; None where they are of different types."""
    classes = {*map(type, cells)}
    if bool in classes and classes & {int, float}:
        return None
    if dict in classes or any(type(cell) is list and cell and type(cell[0]) is dict for cell in cells):
        cells = [_folded(cell) for cell in cells]
    try:
        array = pa.array(cells)
        wide = _join(known, array.type)
        if wide is None or _depth(wide) > _DEPTH:
            return None
        # Some versions of Arrow break lists of nulls by casting them to what they are.
        return array if array.type == wide else array.cast(wide)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None


def _folded(cell: Any) -> Any:
    if isinstance(cell, list):
        return [_folded(each) for each in cell]
    return {"json": json.dumps(cell, ensure_ascii=False)} if isinstance(cell, dict) else cell


def _join(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds what is of either, if there is one."""
    if one == other or kinds.is_null(other):
        return one
    if kinds.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if kinds.is_list(one) and kinds.is_list(other):
        inner = _join(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    return None


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if kinds.is_list(kind) else 0


def _refuse(path: Path, key: str, lines: Sequence[int], cells: Sequence[Any], known: pa.DataType) -> NoReturn:
    """Says which cell does not go with those before it, or, as whole numbers among decimal ones, with those after."""
    for _ in range(2):
        for line, cell in zip(lines, cells, strict=True):
            array = _array([cell], known)
            if array is None:
                raise DataError(f"{path}, line {line}: {quote(key)} {_wrong(cell, known)}")
            known = array.type
    raise DataError(f"{path}, lines {lines[0]} to {lines[-1]}: {quote(key)} cannot be read.")


def _wrong(cell: Any, known: pa.DataType) -> str:
    shown = quote(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))
    alone = _array([cell], pa.null())
    if alone is not None and _join(known, alone.type) is None:
        return f"is {_name(alone.type, 'a {}')} ({shown}), where earlier lines hold {_name(known, '{}s')}."
    if isinstance(cell, int):
        return f"is {shown}, a number that is too large to be kept exactly.\nPut numbers that are names in quotes."
    if isinstance(cell, str):
        return f"is {shown}, which holds half a letter (a lone surrogate)."
    return f"is the list {shown} of different things, of numbers too large, or of lists of lists of lists."


def _name(kind: pa.DataType, form: str) -> str:
    """What a type is called, in the form `a {}` or `{}s`."""
    if kinds.is_list(kind):
        inner = "" if kinds.is_null(kind.value_type) else f" of {_name(kind.value_type, '{}s')}"
        return form.format("list") + inner
    names = {pa.string(): "text", pa.bool_(): "truth value", pa.int64(): "number", pa.float64(): "number"}
    return form.format(names.get(kind, "JSON object"))


def _lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """The lines on which something stands, by number."""
    with open_text(path, encoding) as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip(_SPACE)
            if text:
                yield number, text


def _blocks(path: Path, encoding: str | None) -> Iterator[Block]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    letters = 0
    for number, line in _lines(path, encoding):
        lines.append(number)
        rows.append(_parse(decoder, path, number, line))
        letters += len(line)
        if len(lines) == _LINES or letters >= _LETTERS:
            yield lines, rows
            lines, rows, letters = [], [], 0
    if lines:
        yield lines, rows


def _parse(decoder: json.JSONDecoder, path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row, end = decoder.raw_decode(line)
        if end != len(line):
            raise json.JSONDecodeError("Extra data", line, end)
    except json.JSONDecodeError as error:
        reason = f"is no JSON at letter {error.pos + 1}: {error.msg} ({quote(line)})"
    except (ValueError, RecursionError) as error:  # a constant, or more digits or brackets than Python reads
        reason = f"is no JSON: {error}"
    else:
        if isinstance(row, dict):
            return row
        reason = f"is {quote(line)}, which is no object"
    raise DataError(f'{path}, line {number} {reason}.\nEach line holds one object, such as {{"text": "..."}}')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number there, write null")
