"""What training learns from and what it is measured on, from whatever a person gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from finetuner_core.data.beir import is_beir, read_beir
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import Reading, understand, understand_splits
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.split import hold_out
from finetuner_core.data.tables import read_table
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import BackboneInfo, quote


@dataclass(frozen=True)
class TrainingSet:
    """One of several data sets that a model is trained on at once. Each batch is of one of them.

    Args:
        data: what `fit` takes as `train_data`.
        weight: how often batches are of it, beside the others; where none has one, as often as it has batches.
        loss: the name of its loss; else that of `fit`.
        loss_options: of that loss.
        columns: for each name that Finetuner knows, the header in the file; else those of `fit`.
        name: what it is called where its numbers are shown; else the name of the file.
    """

    data: Any
    weight: float | None = None
    loss: str | None = None
    loss_options: Mapping[str, object] | None = None
    columns: Mapping[str, str] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Part:
    """One data set, readable.

    Args:
        name: what it is called.
        train: what training learns from.
        eval: what it is measured on; None where evaluation data was given for all.
        how: how that was come by, for the person; empty where it was given.
        skipped: how many rows were left out because they cannot be used.
        weight: as given.
        loss: as given.
        loss_options: as given.
        roles: for each role the headers of its columns; empty for data that was in memory.
        unused: the headers of columns that play no role.
    """

    name: str
    train: Dataset
    eval: Dataset | SearchSet | None
    how: str = ""
    skipped: int = 0
    weight: float | None = None
    loss: str | None = None
    loss_options: Mapping[str, object] | None = None
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """Readable data.

    Args:
        parts: the data sets; most often one.
        given: what all of them are measured on, where a person gave it.
        given_skipped: how many of its rows were left out because they cannot be used.
    """

    parts: tuple[Part, ...]
    given: Dataset | SearchSet | None = None
    given_skipped: int = 0

    @property
    def evals(self) -> dict[str, Dataset | SearchSet]:
        """What the model is measured on, by name: that which was given, or what was held out of each part."""
        if self.given is not None:
            return {"given": self.given}
        return {part.name: part.eval for part in self.parts if part.eval is not None}

    @property
    def train(self) -> Dataset:
        """What training learns from, in the first part."""
        return self.parts[0].train

    @property
    def eval(self) -> Dataset | SearchSet:
        """What the model is measured on first."""
        return next(iter(self.evals.values()))

    @property
    def how(self) -> str:
        """How that was come by, for the person; empty where it was given."""
        return "" if self.given is not None else self.parts[0].how

    @property
    def skipped(self) -> int:
        """How many rows were left out of all because they cannot be used."""
        return sum(part.skipped for part in self.parts) + self.given_skipped


def read_sources(
    info: BackboneInfo | None,
    train_data: Any,
    eval_data: Any = None,
    *,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    val_split: float = 0.2,
    skip_bad_items: bool = False,
    seed: int = 0,
    encoding: str | None = None,
) -> Sources:
    """Reads, splits and checks the data for a model; the parameters are those of `fit`.

    Args:
        info: the model's row; without one what is read is guessed from the columns.
        train_data: a `Dataset`, a path or whatever `read_table` reads; or several, as a sequence of such and of
            `TrainingSet`. A sequence of mappings is one data set, of rows.
        eval_data: the same for evaluation, or a `SearchSet`; where not given, a part of each is held out.
        columns: for each name that Finetuner knows, the header in the file.
        split_column: a column that tells rows of one file apart.
        val_split: the share that is held out.
        skip_bad_items: whether to leave out what cannot be used.
        seed: what is held out follows from it.
        encoding: of files of text, where it is neither UTF-8 nor said by the file itself.

    Raises:
        OptionError: if the parameters contradict each other.
        DataError: if the data cannot be read, or does not fit the model.
    """
    given, given_skipped = None, 0
    if eval_data is not None:
        given, given_skipped = _read_evaluation(info, eval_data, columns, skip_bad_items, encoding)
    parts: list[Part] = []
    for each in as_sets(train_data):
        own = replace(each, columns=columns if each.columns is None else each.columns)
        part = _read_part(info, own, given is not None, split_column, val_split, skip_bad_items, seed, encoding)
        same = sum(part.name == other.name or other.name.startswith(f"{part.name} (") for other in parts)
        parts.append(replace(part, name=f"{part.name} ({same + 1})") if same else part)
    sources = Sources(tuple(parts), given, given_skipped)
    _check_widths([part.train for part in parts] + [*sources.evals.values()])
    return sources


def as_sets(data: Any) -> list[TrainingSet]:
    """The data sets in what a person gave: one, or each of a sequence; a sequence of mappings is one, of rows."""
    several = isinstance(data, Sequence) and not isinstance(data, str | bytes | Mapping)
    several = several and not any(isinstance(one, Mapping) for one in data)
    sets = [one if isinstance(one, TrainingSet) else TrainingSet(one) for one in (data if several else [data])]
    if not sets:
        raise OptionError("train_data is an empty list. Give data, or a list of several data sets.")
    for one in sets:
        if one.weight is not None and not (isinstance(one.weight, Real) and 0 < float(one.weight) < math.inf):
            raise OptionError(f"The weight of a data set is {quote(one.weight)}; it must be a number above 0.")
    if len({one.weight is None for one in sets}) > 1:
        raise OptionError("Some data sets have a weight and some have none. Give one to each, or to none.")
    return sets


def _read_part(
    info: BackboneInfo | None,
    given: TrainingSet,
    has_evaluation: bool,
    split_column: str | None,
    val_split: float,
    skip_bad_items: bool,
    seed: int,
    encoding: str | None,
) -> Part:
    data = given.data
    held_out: Dataset | SearchSet | None = None
    how, where_held_out = "", None
    if split_column is not None and (isinstance(data, Dataset) or has_evaluation or is_beir(data)):
        raise OptionError("split_column tells rows of one file apart: give a file, and no evaluation data.")
    if isinstance(data, SearchSet):
        raise DataError(f"{data.source} is a search set. To train on it, give its pairs().")
    if is_beir(data):
        reading = Reading(read_beir(data, "train").pairs(), {})
        if not has_evaluation:
            held_out, how = _other_judgements(_folder_of(data), reading.dataset.source)
    elif split_column is not None:
        table = read_table(data, encoding)
        reading, other = understand_splits(table, info, split_column, given.columns, skip_bad_items=skip_bad_items)
        reading = replace(reading, skipped=reading.skipped + other.skipped)
        held_out, how, where_held_out = other.dataset, f"by column {split_column}", other.where
    elif isinstance(data, Dataset):
        reading = Reading(data, {})
    else:
        reading = understand(read_table(data, encoding), info, given.columns, skip_bad_items=skip_bad_items)
    train = reading.dataset
    _check_modalities(info, train)
    train, skipped = usable(train, skip_bad_items=skip_bad_items, where=reading.where)
    if held_out is None and not has_evaluation:
        train, held_out, how = hold_out(train, val_split, seed)
    elif isinstance(held_out, Dataset):
        held_out, skipped_too = usable(held_out, skip_bad_items=skip_bad_items, where=where_held_out)
        skipped += skipped_too
    return Part(
        given.name or (_folder_of(data).name if is_beir(data) else Path(train.source).name),
        train,
        held_out,
        how,
        reading.skipped + skipped,
        given.weight,
        given.loss,
        given.loss_options,
        reading.roles,
        reading.unused,
    )


def _read_evaluation(
    info: BackboneInfo | None, data: Any, columns: Mapping[str, str] | None, skip_bad_items: bool, encoding: str | None
) -> tuple[Dataset | SearchSet, int]:
    if not isinstance(data, Dataset | SearchSet):
        if is_beir(data):
            data = read_beir(data)
        else:
            reading = understand(read_table(data, encoding), info, columns, skip_bad_items=skip_bad_items)
            _check_modalities(info, reading.dataset)
            dataset, skipped = usable(reading.dataset, skip_bad_items=skip_bad_items, where=reading.where)
            return dataset, reading.skipped + skipped
    _check_modalities(info, data)
    return (data, 0) if isinstance(data, SearchSet) else usable(data, skip_bad_items=skip_bad_items)


def _folder_of(data: str | Path) -> Path:
    return Path(data).parent.parent if Path(data).is_file() else Path(data)


def _other_judgements(folder: Path, trained: str) -> tuple[SearchSet | None, str]:
    """What a folder in the layout of BEIR is measured on: judgements other than the file that is trained on."""
    for split in ("dev", "test"):
        file = folder / "qrels" / f"{split}.tsv"
        if file.is_file() and str(file) != trained:
            return read_beir(folder, split), f"by qrels/{split}.tsv"
    return None, ""


def _columns_of(data: Dataset | SearchSet) -> tuple[Column, ...]:
    return data.columns if isinstance(data, Dataset) else (data.queries, data.corpus)


def _check_widths(data: Sequence[Dataset | SearchSet]) -> None:
    """Vectors go through one model, so all of them are as wide as the first."""
    first = None
    for own in data:
        for column in _columns_of(own):
            if column.modality == "vector" and len(column):
                width = len(column.take([0])[0])  # type: ignore[arg-type]
                first = first or (width, f"{quote(column.name)} of {own.source}")
                if width != first[0]:
                    raise DataError(
                        f"{quote(column.name)} of {own.source} holds vectors of width {width}, and {first[1]} of width "
                        f"{first[0]}.\nOne model takes vectors of one width."
                    )


def _check_modalities(info: BackboneInfo | None, data: Dataset | SearchSet) -> None:
    for column in _columns_of(data):
        if info is not None and column.modality not in info.modalities:
            takes = " and ".join(f"{modality}s" for modality in info.modalities)
            raise DataError(f"{info.name} takes {takes}, and the column {column.name} holds {column.modality}s.")
