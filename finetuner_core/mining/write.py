"""Writes what was mined: CSV, JSON lines or Parquet, by the file's suffix."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuner_core.errors import DataError, FolderError
from finetuner_core.values import Modality

SUFFIXES = (".csv", ".jsonl", ".parquet")

Block = Mapping[str, Sequence[object]]
Write = Callable[[Block], None]


def check_out(out: str | Path, modalities: Sequence[Modality]) -> Path:
    """Whether a file of that name can be written, asked before the work that it would cost.

    Args:
        out: the file.
        modalities: what its columns hold.

    Raises:
        FolderError: if its suffix is none of those, its folder is not there, or it is a folder.
        DataError: if what is to be written does not go into such a file.
    """
    file = Path(out).expanduser().absolute()
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise FolderError(
            f"{out} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, which say how it is written."
        )
    if file.is_dir():
        raise FolderError(f"{out} is a folder; negatives are written into a file.")
    if not file.parent.is_dir():
        raise FolderError(f"{out} cannot be written: there is no folder {file.parent}.")
    if not os.access(file.parent, os.W_OK):
        raise FolderError(f"{out} cannot be written: no right to write in {file.parent}.")
    if suffix == ".csv" and "vector" in modalities:
        raise DataError(f"{out}: vectors do not go into a .csv.\nWrite them into a .parquet or .jsonl file.")
    if suffix == ".parquet":
        try:
            importlib.import_module("pyarrow")
        except ModuleNotFoundError:
            raise FolderError(
                f"{out}: .parquet needs pyarrow, which is not installed.\n"
                "Install it: pip install pyarrow, or write .jsonl."
            ) from None
    return file


@contextlib.contextmanager
def writing(file: Path, suffix: str) -> Iterator[Write]:
    """Within it, what is given to the function is written to the file as rows, block by block.

    Args:
        file: where to.
        suffix: one of `SUFFIXES`.
    """
    with {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[suffix](file) as write:
        yield write


def as_cells(items: Sequence[object], modality: Modality, folder: Path) -> list[object]:
    """Items as they stand in a file: an image by its path, from the file's folder where it lies in there.

    Raises:
        DataError: if an image has no path.
    """
    if modality == "vector":
        return [np.asarray(item, dtype=np.float32).tolist() for item in items]
    if modality == "text":
        return list(items)
    cells: list[object] = []
    for item in items:
        if not isinstance(item, str | Path):
            raise DataError(
                f"An image that has no file of its own ({type(item).__name__}) cannot be written.\n"
                "Give images as paths."
            )
        path = Path(item).expanduser().absolute()
        cells.append(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path))
    return cells


@contextlib.contextmanager
def _csv(file: Path) -> Iterator[Write]:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        begun = False

        def write(block: Block) -> None:
            nonlocal begun
            if not begun:
                writer.writerow(block)
                begun = True
            writer.writerows(zip(*block.values(), strict=True))

        yield write


@contextlib.contextmanager
def _jsonl(file: Path) -> Iterator[Write]:
    with file.open("w", encoding="utf-8", newline="") as stream:

        def write(block: Block) -> None:
            for row in zip(*block.values(), strict=True):
                stream.write(json.dumps(dict(zip(block, row, strict=True)), ensure_ascii=False) + "\n")

        yield write


@contextlib.contextmanager
def _parquet(file: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None

    def write(block: Block) -> None:
        nonlocal writer
        table = pa.table(dict(block))
        if writer is None:
            writer = pq.ParquetWriter(file, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
