"""Reads what is to be mined, from whatever a person gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetuner_core.data.beir import is_beir, read_beir
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import Reading, find_items, understand, understand_splits
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.tables import read_table
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError, OptionError
from finetuner_core.mining.task import Task, task_of
from finetuner_core.values import BackboneInfo


def read_task(
    info: BackboneInfo,
    data: Any,
    corpus: Column | str | Path | None,
    *,
    columns: Mapping[str, str] | None,
    split_column: str | None,
    skip_bad_items: bool,
    encoding: str | None,
    seed: int,
) -> tuple[Task, int]:
    """What is to be mined, and how many rows were left out because they cannot be used; the parameters are `mine`'s.

    Raises:
        OptionError: if the parameters contradict each other.
        DataError: if the data cannot be read, or does not fit the model.
    """
    if is_beir(data):
        if columns or split_column:
            raise OptionError(f"{data} has the layout of BEIR: columns and split_column do not apply to it.")
        data = read_beir(data, "train")
    documents: list[Column] = []
    if isinstance(data, SearchSet):
        documents.append(data.corpus)
        data = data.pairs()
    reading = _read(info, data, columns, split_column, skip_bad_items, encoding)
    dataset = reading.dataset
    if isinstance(corpus, Column):
        documents.append(corpus)
    elif corpus is not None:
        documents.append(find_items(read_table(corpus, encoding), info, None, dataset.columns[-1].modality))
    for column in (*dataset.columns, *documents):
        if column.modality not in info.modalities:
            takes = " and ".join(f"{modality}s" for modality in info.modalities)
            raise DataError(f"{info.name} takes {takes}, and the column {column.name} holds {column.modality}s.")
    dataset, skipped = usable(dataset, skip_bad_items=skip_bad_items, where=reading.where)
    return task_of(dataset, documents, seed), reading.skipped + skipped


def _read(
    info: BackboneInfo,
    data: Any,
    columns: Mapping[str, str] | None,
    split_column: str | None,
    skip_bad_items: bool,
    encoding: str | None,
) -> Reading:
    if isinstance(data, Dataset):
        if split_column:
            raise OptionError("split_column tells rows of a file apart: give a file.")
        return Reading(data, {})
    table = read_table(data, encoding)
    if split_column is None:
        return understand(table, info, columns, skip_bad_items=skip_bad_items)
    return understand_splits(table, info, split_column, columns, skip_bad_items=skip_bad_items)[0]
