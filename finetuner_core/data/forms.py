"""Recognises in a table's columns the form of data that a model can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.items import looks_like, read_column, read_labels, read_scores
from finetuner_core.data.roles import LAYOUTS, Roles, find_roles, unknown_name
from finetuner_core.data.tables import Table, read_table
from finetuner_core.data.view import Faults, View, chunks, explode, is_list, widen
from finetuner_core.errors import DataError
from finetuner_core.values import MODALITIES_OF_TASK, BackboneInfo, Modality, listed, near, quote

TRAIN_VALUES = frozenset({"train", "training"})
EVAL_VALUES = frozenset({"test", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True)
class Reading:
    """A table, understood.

    Args:
        dataset: the rows that can be used.
        roles: for each role the headers of its columns.
        unused: the headers of the other columns.
        skipped: how many rows were left out because they cannot be used.
        where: says where a row of the data set stands; nothing for data that was in memory.
    """

    dataset: Dataset
    roles: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...] = ()
    skipped: int = 0
    where: Callable[[int], str] | None = None


def read_dataset(path: str | Path, info: BackboneInfo, columns: Mapping[str, str] | None = None) -> Dataset:
    """Reads a file or folder as data for a model.

    Args:
        path: see `read_table`.
        info: the model's row; its task says which forms fit.
        columns: for each name that Finetuner knows, the header in the file.

    Raises:
        DataError: if the file cannot be read, or fits no form; the message says what was found and what is expected.
    """
    return understand(read_table(path), info, columns).dataset


def understand(
    table: Table,
    info: BackboneInfo | None,
    columns: Mapping[str, str] | None = None,
    *,
    skip_bad_items: bool = False,
) -> Reading:
    """What a table is for a model.

    Args:
        table: what was read.
        info: the model's row; its task says which forms fit. Without one the task is guessed from the columns.
        columns: for each name that Finetuner knows, the header in the table; the form is one that has all of them.
        skip_bad_items: whether to leave out rows that cannot be used, such as those with an empty cell.

    Raises:
        DataError: if no form of the model's task is among the columns, or a cell is not what it has to be.
    """
    reading, _, _ = _understand(table, info, columns, None, skip_bad_items)
    return reading


def understand_splits(
    table: Table,
    info: BackboneInfo | None,
    split_column: str,
    columns: Mapping[str, str] | None = None,
    *,
    skip_bad_items: bool = False,
) -> tuple[Reading, Reading]:
    """The same for a table that holds both, told apart by a column.

    Returns:
        The data for training and the data for evaluation, each with how many of its own rows were left out.

    Raises:
        DataError: as `understand`, or if the column is not there or has other values.
    """
    reading, side, bad = _understand(table, info, columns, split_column, skip_bad_items)
    parts = []
    for name, wanted in (("train", True), ("test, val, dev or eval", False)):
        rows = np.flatnonzero(side[~bad] == wanted)
        if not len(rows):
            raise DataError(f"{table.source}: no row has {name} in column {split_column}.")
        dataset = reading.dataset.select(rows)
        skipped = int((side[bad] == wanted).sum())
        parts.append(Reading(dataset, reading.roles, reading.unused, skipped, _among(rows, reading.where)))
    return parts[0], parts[1]


def _understand(
    table: Table, info: BackboneInfo | None, mapped: Mapping[str, str] | None, split: str | None, skip_bad_items: bool
) -> tuple[Reading, np.ndarray, np.ndarray]:
    """The reading; and of all rows, which are for training and which cannot be used, bool (N,) each."""
    view, mapped = View.of(table), mapped or {}
    for header in (*mapped.values(), *([split] if split is not None else [])):
        if header not in view.columns:
            raise DataError(
                f"{view.source} has no column {quote(header)}.{near(header, view.columns)}\n"
                f"It has: {listed(view.columns)}."
            )
    task = _guess_task(view, mapped) if info is None else info.task
    roles = _find(view, task, info, mapped)
    headers = dict(roles.headers)
    unused = tuple(
        header for header in view.columns if header != split and not any(header in own for own in headers.values())
    )
    shown = dict(headers)
    modalities = MODALITIES_OF_TASK[task]
    if "label" not in roles.layout.needs and "labels" not in roles.layout.needs:
        many = "positive" if "positive" in headers else "text"
        if modalities != ("vector",) and "score" not in headers and is_list(view.columns[headers[many][0]]):
            view = explode(view, headers[many][0])
    if len(headers.get("positive", ())) > 1 and "score" not in headers:
        raise DataError(
            f"{view.source} has the candidates {', '.join(headers['positive'])} and no scores.\n"
            "Each needs one: score_1, score_2, ... What belongs to its anchor is a positive, what does not a negative."
        )
    faults = Faults(view.where)
    for role in ("positive", "negative"):
        if len(headers.get(role, ())) == 1 and _holds_lists(view, headers[role][0], modalities):
            view, names = widen(view, headers[role][0], faults)
            headers[role] = tuple(names)
    dataset = _read(view, headers, modalities, faults)
    side = np.ones(len(dataset), bool) if split is None else _read_sides(view, split)
    if not skip_bad_items:
        faults.refuse(len(dataset))
    bad = np.zeros(len(dataset), bool)
    bad[[*faults.rows]] = True
    if bad.all():
        raise DataError(f"No row of {view.source} can be used. {faults.where(faults.first)}: {faults.reason}")
    if not bad.any():
        return Reading(dataset, shown, unused, 0, view.where), side, bad
    rows = np.flatnonzero(~bad)
    return Reading(dataset.select(rows), shown, unused, len(faults.rows), _among(rows, view.where)), side, bad


def _among(rows: np.ndarray, where: Callable[[int], str] | None) -> Callable[[int], str] | None:
    """Says where a row stands, of some of those of which `where` does."""
    return None if where is None else lambda row: where(int(rows[row]))


def _find(view: View, task: str, info: BackboneInfo | None, mapped: Mapping[str, str]) -> Roles:
    layouts = LAYOUTS[task]
    name = "a model" if info is None else info.name
    for role in mapped:
        wrong = unknown_name(role, layouts)
        if wrong is not None:
            raise DataError(f"{quote(role)} is no column that {name} is trained on.{wrong}")
    roles, unclear = find_roles(view.columns, layouts, mapped)
    if roles is not None:
        return roles
    example = ",".join(f"{role}=..." for role in layouts[-1].needs)
    cure = f"Other headers can be mapped: --columns {example}"
    if task == "image-to-image" and {"text", "image"} <= {*view.columns}:
        cure = "To find images by texts, give a model for the texts as well: --text-model NAME"
    takes = " and ".join(f"{modality}s" for modality in MODALITIES_OF_TASK[task])
    raise DataError(
        f"{name} takes {takes} and needs the columns {' or '.join(map(str, layouts))}; "
        f"{view.source} has {listed(view.columns)}.{''.join(f' {each}' for each in unclear)}\n{cure}"
    )


def _guess_task(view: View, mapped: Mapping[str, str]) -> str:
    """The task whose columns are there and hold what they should; else one whose columns are there."""
    by_name, unclear = None, []
    # Both text and image are more than the one of them.
    for task in ("all", "text-to-image", "image-to-image", "text-to-text"):
        layouts = [layout for layout in LAYOUTS[task] if all(layout.has(role) for role in mapped)]
        roles, own = find_roles(view.columns, layouts, mapped)
        unclear += own
        if roles is None:
            continue
        by_name = task
        items = [role for role in roles.layout.needs if role not in ("label", "labels")]
        kinds = MODALITIES_OF_TASK[task] * (len(items) // len(MODALITIES_OF_TASK[task]))
        if all(looks_like(view.columns[roles.headers[role][0]], kind) for role, kind in zip(items, kinds, strict=True)):
            return task
    if by_name is not None:
        return by_name
    forms = dict.fromkeys(str(layout) for layouts in LAYOUTS.values() for layout in layouts)
    raise DataError(
        f"{view.source} has {listed(view.columns)}, and training needs the columns {' or '.join(forms)}."
        f"{''.join(f' {each}' for each in dict.fromkeys(unclear))}\n"
        "Other headers can be mapped: --columns anchor=...,positive=..."
    )


def _holds_lists(view: View, header: str, modalities: Sequence[Modality]) -> bool:
    """Whether a cell holds several items: a list, or of vectors a list of lists."""
    cells = view.columns[header]
    return is_list(cells) if modalities != ("vector",) else is_list(cells, deep=True)


def _read(
    view: View, headers: Mapping[str, tuple[str, ...]], modalities: Sequence[Modality], faults: Faults
) -> Dataset:
    labels, scores, columns = None, None, []
    for role, own in headers.items():
        if role in ("label", "labels"):
            labels = read_labels(view.columns[own[0]], role, own[0], view.source, faults)
        elif role != "score":
            # Text comes first where there are both; what is not found is of the modality that is.
            modality = modalities[0 if role == "text" else -1]
            columns += [read_column(view, header, modality, role, faults) for header in own]
    if "score" in headers:
        scores = read_scores(view, headers["score"], len(columns) - 1, faults)
    return Dataset(tuple(columns), labels, view.source, scores)


def _read_sides(view: View, split: str) -> np.ndarray:
    """Whether each row is for training, bool (N,)."""
    side = np.zeros(len(view), bool)
    for start, part in chunks(view.columns[split]):
        for row, cell in enumerate(part, start):
            value = str(cell).strip().lower()
            if value not in TRAIN_VALUES and value not in EVAL_VALUES:
                raise DataError(
                    f"{view.where(row)}: column {split} has the value {quote(value)}.\n"
                    f"Allowed are {', '.join(sorted(TRAIN_VALUES))} and {', '.join(sorted(EVAL_VALUES))}."
                )
            side[row] = value in TRAIN_VALUES
    return side


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
                f"{table.source} has the columns {listed(table.columns)}; which one is to be encoded?\n"
                "Say --column HEADER"
            )
    header = column or next(iter(table.columns))
    if header not in table.columns:
        raise DataError(f"{table.source} has no column {quote(header)}; it has {listed(table.columns)}.")
    faults = Faults(table.where)
    # An empty text can be encoded, and has to be, as what is written stands in the order of the rows.
    read = read_column(View.of(table), header, fitting[0], header, faults, empty=True)
    faults.refuse(len(read), "Each row is encoded: mend or remove it.")
    return read
