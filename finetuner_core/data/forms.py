"""Recognises in a table's columns the form of data that a model can be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError
from finetuner_core.values import Modality, near, quote

if TYPE_CHECKING:
    import numpy as np

    from finetuner_core.values import BackboneInfo

# For each task the columns that make a form; the first form that is there, and that has all mapped columns, counts.
_FORMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "text-to-text": (("text", "label"), ("anchor", "positive")),
    "image-to-image": (("image", "label"), ("anchor", "positive")),
    "text-to-image": (("text", "image"),),
    "all": (("vectors", "labels"),),
}
_LABELS = ("label", "labels")

TRAIN_VALUES = frozenset({"train", "training"})
EVAL_VALUES = frozenset({"test", "val", "valid", "validation", "dev", "eval"})


def read_dataset(path: str | Path, info: BackboneInfo, columns: Mapping[str, str] | None = None) -> Dataset:
    """Reads a file or folder as data for a model.

    Args:
        path: see `read_table`.
        info: the model's row; its task says which forms fit.
        columns: for each name that Finetuner knows, the header in the file.

    Raises:
        DataError: if the file cannot be read, or fits no form; the message says what was found and what is expected.
    """
    return recognise(read_table(path), info, columns)


def read_splits(
    path: str | Path, info: BackboneInfo, split_column: str, columns: Mapping[str, str] | None = None
) -> tuple[Dataset, Dataset]:
    """Reads one file that holds both, told apart by a column: `train` against `test`, `val`, `dev` or `eval`.

    Returns:
        The data for training and the data for evaluation.

    Raises:
        DataError: as `read_dataset`, or if the column is not there or has other values.
    """
    table = read_table(path)
    # The column may at the same time be mapped to another name, so it is looked up under its own.
    values = [str(value).strip().lower() for value in table.rename({"split": split_column}).columns["split"]]
    for row, value in enumerate(values):
        if value not in TRAIN_VALUES | EVAL_VALUES:
            raise DataError(
                f"{table.where(row)}: column {split_column} has the value {quote(value)}.\n"
                f"Allowed are {', '.join(sorted(TRAIN_VALUES))} and {', '.join(sorted(EVAL_VALUES))}."
            )
    dataset = recognise(table, info, columns)
    train = [row for row, value in enumerate(values) if value in TRAIN_VALUES]
    held_out = [row for row, value in enumerate(values) if value in EVAL_VALUES]
    for name, rows in (("train", train), ("test, val, dev or eval", held_out)):
        if not rows:
            raise DataError(f"{table.source}: no row has {name} in column {split_column}.")
    return dataset.select(train), dataset.select(held_out)


def recognise(table: Table, info: BackboneInfo, columns: Mapping[str, str] | None = None) -> Dataset:
    """The data set that a table is for a model.

    Args:
        table: what was read.
        info: the model's row; its task says which forms fit.
        columns: for each name that Finetuner knows, the header in the table; the form is one that has all of them.

    Raises:
        DataError: if no form of the model's task is among the columns, or a cell is not what it has to be.
    """
    forms, mapped = _FORMS[info.task], columns or {}
    known = [name for form in forms for name in form]
    for name in mapped:
        if name not in known:
            raise DataError(
                f"{quote(name)} is no column that {info.name} is trained on.{near(name, known)}\n"
                f"A mapping has one of {', '.join(known)} on its left, and the file's own header on its right."
            )
    table = table.rename(mapped)
    form = next((form for form in forms if {*mapped} <= {*form} <= {*table.columns}), None)
    if form is None:
        example = ",".join(f"{name}=..." for name in forms[-1])
        cure = f"Other headers can be mapped: --columns {example}"
        if info.task == "image-to-image" and {"text", "image"} <= {*table.columns}:
            cure = "To find images by texts, give a model for the texts as well: --text-model NAME"
        raise DataError(
            f"{info.name} takes {' and '.join(f'{modality}s' for modality in info.modalities)} and needs the columns "
            f"{' or '.join(','.join(form) for form in forms)}; {table.source} has {', '.join(table.columns)}.\n"
            f"{cure}"
        )
    labels = next((_read_labels(table, name) for name in form if name in _LABELS), None)
    items = [name for name in form if name not in _LABELS]
    # An anchor and its positive are of the one modality that the model takes; other columns are named after theirs.
    modalities: Sequence[Modality] = info.modalities if len(info.modalities) == len(items) else info.modalities * 2
    read = tuple(read_column(table, name, modality) for name, modality in zip(items, modalities, strict=True))
    return Dataset(read, labels, source=str(table.source))


def read_column(table: Table, name: str, modality: Modality) -> Column:
    """One column as items of a modality: image paths are made relative to the file, vectors are checked.

    Raises:
        DataError: if the column is not there, or a vector is not finite numbers.
    """
    if name not in table.columns:
        raise DataError(f"{table.source} has no column {quote(name)}; it has {', '.join(table.columns)}.")
    cells = table.columns[name]
    if modality == "image":
        base = table.source if table.source.is_dir() else table.source.parent
        return Column(name, modality, [base / str(cell) for cell in cells])
    if modality == "vector":
        return Column(name, modality, _read_vectors(table, cells))
    return Column(name, modality, [str(cell) for cell in cells])


def _read_labels(table: Table, name: str) -> list[str]:
    cells = table.columns[name]
    if getattr(cells, "ndim", 1) != 1:
        raise DataError(f"{table.source}: {name} must hold one label for each item, not an array of more dimensions.")
    labels = [str(label).strip() for label in cells]
    for row, label in enumerate(labels):
        if not label:
            raise DataError(f"{table.where(row)}: the {name} is empty.")
    return labels


def _read_vectors(table: Table, cells: Sequence[object]) -> np.ndarray:
    import numpy as np

    vectors = np.asarray(cells)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{table.source}: vectors must be numbers of shape (N, D), not {vectors.dtype} of shape {vectors.shape}."
        )
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{table.where(int(wrong[0]))}: the vector holds a NaN or an infinite value "
            f"({len(wrong):,} of {len(vectors):,} rows do)."
        )
    return vectors


def find_items(table: Table, info: BackboneInfo, column: str | None, modality: str | None) -> Column:
    """The column of a table that a model is to encode.

    Args:
        table: what was read.
        info: the model's row.
        column: its header; where not given, the one named after the modality (`text`, `image`, `vectors`), or the only
            one that there is.
        modality: what is in it; where not given, the model's only one.

    Raises:
        DataError: if that does not say which column.
    """
    own_column: Mapping[str, str] = {"text": "text", "image": "image", "vector": "vectors"}
    fitting: Sequence[Modality] = info.modalities
    if modality is not None and modality not in fitting:
        raise DataError(f"{info.name} does not take {quote(modality)}; it takes {' and '.join(fitting)}.")
    if modality is not None:
        fitting = [own for own in fitting if own == modality]
    elif len(fitting) > 1:
        wanted = table.columns if column is None else (column,)
        fitting = [own for own in fitting if own_column[own] in wanted]
    if len(fitting) != 1:
        raise DataError(
            f"{info.name} takes {' or '.join(info.modalities)}; which of them is in {table.source}?\n"
            f"Say --modality {' or --modality '.join(info.modalities)}"
        )
    if column is None:
        column = own_column[fitting[0]] if own_column[fitting[0]] in table.columns else None
        if column is None and len(table.columns) > 1:
            raise DataError(
                f"{table.source} has the columns {', '.join(table.columns)}; which one is to be encoded?\n"
                "Say --column HEADER"
            )
    return read_column(table, column or next(iter(table.columns)), fitting[0])
