"""Reads a file or a folder into columns by header, and knows where each row stands, for messages."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from finetuner_core.errors import DataError
from finetuner_core.values import near, quote

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Table:
    """Columns of equal length, by header.

    Args:
        source: the file or folder that was read.
        columns: the cells of each column: strings, or numbers for arrays.
        lines: for text files, the line on which each row begins.
    """

    source: Path
    columns: Mapping[str, Sequence[object]]
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return min((len(column) for column in self.columns.values()), default=0)

    def where(self, row: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.source}, line {self.lines[row]}" if self.lines else f"{self.source}, row {row}"

    def rename(self, columns: Mapping[str, str]) -> Table:
        """The table with headers mapped to the names that Finetuner knows.

        Args:
            columns: for each name that Finetuner knows, the header in the file.

        Raises:
            DataError: if the file has no such header.
        """
        for header in columns.values():
            if header not in self.columns:
                found = ", ".join(self.columns)
                raise DataError(
                    f"{self.source} has no column {quote(header)}.{near(header, self.columns)}\nIt has: {found}."
                )
        renamed = {name: self.columns[header] for name, header in columns.items()}
        rest = {name: cells for name, cells in self.columns.items() if name not in columns}
        return replace(self, columns=renamed | rest)


def read_table(path: str | Path) -> Table:
    """Reads a CSV or TSV file with a header, a `.npz` archive of arrays, a text file or a folder of images.

    Args:
        path: `.csv`, `.tsv`; `.npz`; `.txt` (one text a line); or a folder that holds a folder of images for each
            label.

    Raises:
        DataError: if it is not there, is empty, or is not what its name says.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises where there is no such user
    try:
        return _read(path)
    except OSError as error:
        raise DataError(f"{quote(path)} cannot be read: {error.strerror or error}.") from None


def _read(path: Path) -> Table:
    if path.is_dir():
        return _read_image_folder(path)
    if not path.is_file():
        raise DataError(f"There is no file or folder {quote(path)}.")
    match path.suffix.lower():
        case ".csv":
            return _read_delimited(path, ",")
        case ".tsv":
            return _read_delimited(path, "\t")
        case ".txt":
            lines = _read_text(path).removesuffix("\n").split("\n")
            return Table(path, {"text": lines}, range(1, len(lines) + 1))
        case ".npz":
            return _read_arrays(path)
    raise DataError(f"{path} ends in {quote(path.suffix)}.\nReadable are .csv, .tsv, .npz, .txt and folders of images.")


def _read_text(path: Path) -> str:
    """The text of a file, whose lines end in a newline whatever they ended in."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a UTF-8 text file (byte {error.start} cannot be read).\nSave it as UTF-8 text."
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is not a text file: it holds zero bytes.")
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return text


def _read_delimited(path: Path, delimiter: str) -> Table:
    csv.field_size_limit(2**31 - 1)
    # Lines end at a newline alone: str.splitlines would also cut a text at U+2028 or a form feed.
    reader = csv.reader(StringIO(_read_text(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            if not header:
                header = [name.strip() for name in row]
            elif row and len(row) != len(header):
                raise DataError(
                    f"{path}, line {line}: {len(row)} fields where the header has {len(header)} ({', '.join(header)})."
                )
            elif row:
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: the row that begins on line {line} is not CSV: {error}.\n"
            "A field that begins with a quote must end with one, and quotes inside it are doubled."
        ) from None
    if len(set(header)) != len(header) or not all(header):
        raise DataError(f"{path}: the header has an empty or a repeated name: {', '.join(map(quote, header))}.")
    if not rows:
        raise DataError(f"{path} has a header ({', '.join(header)}) and no rows.")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines)


def _read_arrays(path: Path) -> Table:
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive, or not a whole one.\nnumpy.savez(path, vectors=...) writes one.")
    try:
        # Without pickles nothing in the archive can run. Given a path, numpy leaves the file open where it fails.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, zipfile and zlib each raise their own kinds for a file that is damaged
        raise DataError(
            f"{path} cannot be read as .npz: {error}\n"
            "It must hold arrays of numbers or texts; labels.astype(str) makes texts of objects."
        ) from None
    lengths = {name: len(array) for name, array in arrays.items() if isinstance(array, np.ndarray) and array.ndim}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: its arrays must have one length, not {lengths or 'none'}.")
    if not any(lengths.values()):
        raise DataError(f"{path} has arrays ({', '.join(lengths)}) and no rows.")
    return Table(path, {name: arrays[name] for name in lengths})


def _read_image_folder(path: Path) -> Table:
    # Hidden folders and files are those of other programs, such as .ipynb_checkpoints and macOS's ._photo.jpg.
    found = sorted(
        file for file in path.glob("[!.]*/[!.]*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )
    if not found:
        raise DataError(
            f"{path} holds no images in subfolders.\nAn image folder has one folder for each label, with images in it."
        )
    images = [str(file.relative_to(path)) for file in found]
    return Table(path, {"image": images, "label": [file.parent.name for file in found]})
