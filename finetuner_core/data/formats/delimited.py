"""CSV, TSV and their like, and plain lines of text."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from finetuner_core.data.formats.arrow import columns_of
from finetuner_core.data.formats.spool import spool
from finetuner_core.data.formats.text import LONGEST_LINE, open_text, suffix_of
from finetuner_core.data.formats.well_formed import read_well_formed
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError
from finetuner_core.values import listed, quote

# A batch ends at so many rows or letters.
_ROWS, _LETTERS = 16_384, 1 << 24

# So many rows tell what stands between their fields.
_SAMPLE = 20
_DELIMITERS = ",;\t|"

Rows = Iterator[tuple[int, list[str]]]


def read_delimited(path: Path, encoding: str | None = None) -> Table:
    """Reads a file with a header, whose fields are all texts.

    What stands between the fields is a comma, a semicolon, a tab or a bar, whichever divides the first rows evenly.

    Raises:
        DataError: if a row does not fit the header, or the file is empty or no CSV; with its line.
    """
    csv.field_size_limit(LONGEST_LINE)
    delimiter = "\t" if suffix_of(path) == ".tsv" else _find_delimiter(path, encoding)

    def rows() -> Rows:
        return _records(path, encoding, delimiter)

    first = next(rows(), None)
    if first is None:
        raise DataError(f"{path} is empty.")
    header = [name.strip() for name in first[1]]
    if len(set(header)) != len(header) or not all(header):
        raise DataError(f"{path}: the header has an empty or a repeated name: {listed(map(quote, header))}.")
    if encoding is None and suffix_of(path) == path.suffix.lower():
        quickly = read_well_formed(path, first[1], delimiter)
        if quickly is not None and len(quickly):
            return Table(path, columns_of(quickly.rename_columns(header)), _line_of(rows, skip=1))
    return _table(path, header, rows, skip=1)


def read_lines(path: Path, encoding: str | None = None) -> Table:
    """Reads a file that holds one text a line.

    Raises:
        DataError: if it is empty.
    """

    def rows() -> Rows:
        with open_text(path, encoding) as lines:
            for number, line in enumerate(lines, 1):
                yield number, [line.rstrip("\r\n")]

    if not any(text.strip() for _, (text,) in rows()):
        raise DataError(f"{path} is empty.")
    return _table(path, ["text"], rows)


def _table(path: Path, header: Sequence[str], rows: Callable[[], Rows], skip: int = 0) -> Table:
    schema = pa.schema([(name, pa.string()) for name in header])
    table = spool(schema, _batches(schema, (fields for _, fields in islice(rows(), skip, None))))
    if not len(table):
        raise DataError(f"{path} has a header ({listed(header)}) and no rows.")
    return Table(path, columns_of(table), _line_of(rows, skip))


def _line_of(rows: Callable[[], Rows], skip: int) -> Callable[[int], int]:
    """Finds the line of a row by reading up to it: who asks for one has something to mend there."""
    return lambda row: next(islice(rows(), skip + row, None))[0]


def _batches(schema: pa.Schema, rows: Iterable[list[str]]) -> Iterator[pa.RecordBatch]:
    waiting: list[list[str]] = []
    letters = 0
    for fields in rows:
        waiting.append(fields)
        letters += sum(map(len, fields))
        if len(waiting) == _ROWS or letters >= _LETTERS:
            yield _batch(schema, waiting)
            waiting, letters = [], 0
    if waiting:
        yield _batch(schema, waiting)


def _batch(schema: pa.Schema, rows: Sequence[list[str]]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)], schema=schema)


def _records(path: Path, encoding: str | None, delimiter: str) -> Rows:
    """The header and the rows, each with the line on which it begins. Lines without anything are passed over."""
    line, width, header = 1, 0, ""
    with open_text(path, encoding) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{path}: the row that begins on line {line} is not CSV: {error}.\n"
                    "A field that begins with a quote must end with one, and quotes inside it are doubled."
                ) from None
            if row is None:
                return
            if row and (width or any(cell.strip() for cell in row)):
                width = width or len(row)
                header = header or listed(name.strip() for name in row)
                if len(row) != width:
                    raise DataError(f"{path}, line {line}: {len(row)} fields where the header has {width} ({header}).")
                yield line, row
            line = reader.line_num + 1


def _find_delimiter(path: Path, encoding: str | None) -> str:
    """What divides the first rows into equally many fields, and into the most; else a comma."""
    with open_text(path, encoding) as lines:
        sample = list(islice(lines, _SAMPLE))
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        widths = [len(row) for row in csv.reader(sample, delimiter=delimiter) if row]
        # A quote that is open at the end of the sample makes its last row another one.
        widths = widths[:-1] if len(widths) > 2 else widths
        if widths and len({*widths}) == 1 and widths[0] > most:
            best, most = delimiter, widths[0]
    return best
