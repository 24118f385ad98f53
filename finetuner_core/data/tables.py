"""Reads whatever a person has into columns by header, and knows where each row stands, for messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetuner_core.data.dataset import Cells
from finetuner_core.errors import DataError
from finetuner_core.values import quote

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Table:
    """Columns of equal length, by header.

    Args:
        source: the file or folder that was read.
        columns: the cells of each column: texts, or what else the format has; arrays (N, D) for vectors.
        line_of: for files of text, the line on which a row begins.
        place_of: for data in several files, the file of a row and what it is called there.
    """

    source: Path
    columns: Mapping[str, Sequence[object] | Cells | np.ndarray]
    line_of: Callable[[int], int] | None = None
    place_of: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return min((len(column) for column in self.columns.values()), default=0)

    def where(self, row: int) -> str:
        """Where a row stands, for a message."""
        if self.place_of is not None:
            return self.place_of(row)
        return f"{self.source}, line {self.line_of(row)}" if self.line_of else f"{self.source}, row {row}"


def read_table(data: object, encoding: str | None = None) -> Table:
    """Reads a table.

    Args:
        data: a file: `.csv`, `.tsv` or `.txt` (one text a line), `.jsonl`, each also packed (`.gz`, `.bz2`, `.xz`);
            `.parquet`, `.arrow` or `.feather`; `.npz`; `.tar`, or several of them as a pattern. A folder: one that
            holds a folder of images for each label, or a data set that Hugging Face's library has saved. A data set of
            that library by name: `datasets:NAME:SPLIT`. Or what is in memory: a frame of pandas, an Arrow table, a
            data set of that library, a list of rows as mappings, or a mapping of columns.
        encoding: of a file of text, where it is neither UTF-8 nor says so itself.

    Raises:
        DataError: if it is not there, is empty, or is not what its name says.
    """
    if not isinstance(data, str | os.PathLike):
        from finetuner_core.data.formats import memory

        table = memory.read(data)
        if table is None:
            raise DataError(
                f"Data is a {type(data).__name__}, which is not read.\n"
                "Give a path, a frame of pandas, an Arrow table, a list of rows, or a mapping of columns."
            )
        return table
    try:
        return _read(os.fspath(data), encoding)
    except OSError as error:
        raise DataError(f"{quote(data)} cannot be read: {error.strerror or error}.") from None


def _read(name: str, encoding: str | None) -> Table:
    from finetuner_core.data.formats import arrays, columnar, delimited, jsonl, tar
    from finetuner_core.data.formats.text import suffix_of

    if name.startswith("datasets:"):
        return columnar.read_named(name)
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's raises where there is no such user
    if path.is_dir():
        return columnar.read_saved_dataset(path) if columnar.is_saved_dataset(path) else _read_image_folder(path)
    if not path.is_file():
        if tar.is_pattern(name):
            return tar.read(name)
        raise DataError(f"There is no file or folder {quote(name)}.")
    match suffix_of(path):
        case ".csv" | ".tsv":
            return delimited.read_delimited(path, encoding)
        case ".txt":
            return delimited.read_lines(path, encoding)
        case ".jsonl" | ".ndjson":
            return jsonl.read(path, encoding)
        case ".parquet":
            return columnar.read_parquet(path)
        case ".arrow" | ".feather":
            return columnar.read_arrow(path)
        case ".npz" | ".npy":
            return arrays.read(path)
        case ".tar" | ".tgz":
            return tar.read(path)
    raise DataError(
        f"{path} ends in {quote(path.suffix)}.\n"
        "Readable are .csv, .tsv, .txt, .jsonl, .parquet, .arrow, .npz, .tar and folders of images."
    )


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
