"""What training learns from and what it is measured on, from whatever a person gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetuner_core.data.dataset import Dataset
from finetuner_core.data.forms import read_dataset, read_splits
from finetuner_core.data.split import hold_out
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import BackboneInfo


@dataclass(frozen=True)
class Sources:
    """Readable data.

    Args:
        train: what training learns from.
        eval: what it is measured on.
        how: how the second was come by, for the person; empty where it was given.
        skipped: how many rows were left out because their image cannot be read.
    """

    train: Dataset
    eval: Dataset
    how: str
    skipped: int


def read_sources(
    info: BackboneInfo,
    train_data: Dataset | str | Path,
    eval_data: Dataset | str | Path | None,
    *,
    columns: Mapping[str, str] | None,
    split_column: str | None,
    val_split: float,
    skip_bad_items: bool,
    seed: int,
) -> Sources:
    """Reads, splits and checks the data for a model; the parameters are those of `fit`.

    Raises:
        OptionError: if the parameters contradict each other.
        DataError: if the data cannot be read, or does not fit the model.
    """
    if split_column is not None:
        if isinstance(train_data, Dataset) or eval_data is not None:
            raise OptionError("split_column tells rows of one file apart: give a file, and no evaluation data.")
        train, held_out = read_splits(train_data, info, split_column, columns)
        how = f"by column {split_column}"
    else:
        train = train_data if isinstance(train_data, Dataset) else read_dataset(train_data, info, columns)
        if eval_data is None:
            train, held_out, how = hold_out(train, val_split, seed)
        else:
            held_out = eval_data if isinstance(eval_data, Dataset) else read_dataset(eval_data, info, columns)
            how = ""
    for column in (*train.columns, *held_out.columns):
        if column.modality not in info.modalities:
            takes = " and ".join(f"{modality}s" for modality in info.modalities)
            raise DataError(f"{info.name} takes {takes}, and the column {column.name} holds {column.modality}s.")
    train, skipped = usable(train, skip_bad_items=skip_bad_items)
    held_out, skipped_too = usable(held_out, skip_bad_items=skip_bad_items)
    return Sources(train, held_out, how, skipped + skipped_too)
