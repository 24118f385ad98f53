"""How well a model searches data: labelled items among themselves, or anchors among positives."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import read_dataset, read_splits
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError
from finetuner_core.evaluation.metrics import summarise
from finetuner_core.evaluation.retrieval import ranks_of_relevant
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel


def evaluate(
    model: EmbeddingModel | str | Path,
    data: Dataset | str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    batch_size: int | None = None,
    skip_bad_items: bool = False,
    device: str = "auto",
) -> dict[str, float]:
    """Measures how well a model finds what belongs together.

    Labelled data: every item asks for those of its label among all others. Pairs: every anchor asks for its positives
    among all positives; for text with images, the text asks for the image.

    Args:
        model: a model, the folder of a saved one, or a name.
        data: data, or a file or folder of it.
        columns: for each name that Finetuner knows, the header in the file.
        split_column: a column of the file; only rows where it holds `test`, `val`, `dev` or `eval` are searched.
        batch_size: how many items are encoded at a time.
        skip_bad_items: whether images that cannot be read are left out instead of ending the run; a line on stderr
            says how many were.
        device: where a model that is not built yet computes: `cuda`, `mps`, `cpu`, or `auto` for the best there is.

    Returns:
        `recall@1`, `recall@5`, `recall@10`, `mrr`, `ndcg@10` and `map`, between 0 and 1, as
        `finetuner_core.evaluation.metrics` defines them.

    Raises:
        FinetunerError: if the model or the data cannot be had, or do not fit.
    """
    info = model.info if isinstance(model, EmbeddingModel) else find_row(model_name(model))
    if not isinstance(data, Dataset):
        if split_column is None:
            data = read_dataset(data, info, columns)
        else:
            _, data = read_splits(data, info, split_column, columns)
    data, skipped = usable(data, skip_bad_items=skip_bad_items)
    if skipped:
        print(f"Skipped {skipped:,} images that cannot be read", file=sys.stderr)
    if not isinstance(model, EmbeddingModel):
        model = build_model(model_name(model)).to(choose_device(device))
    return evaluate_dataset(model, data, batch_size=batch_size)


def evaluate_dataset(model: EmbeddingModel, data: Dataset, *, batch_size: int | None = None) -> dict[str, float]:
    """`evaluate` for data that is known to be readable."""
    if data.form == "labelled":
        return _evaluate_labelled(model, data, batch_size)
    return _evaluate_pairs(model, data, batch_size)


def check_evaluable(data: Dataset) -> None:
    """Whether there is anything to find in labelled data.

    Raises:
        DataError: if no label stands on two items.
    """
    if data.form == "labelled" and int(data.classes.max()) + 1 == len(data):
        raise DataError(
            f"{data.source}: each of its {len(data)} items has a label of its own, so there is nothing to find.\n"
            "Evaluation needs labels with two items or more."
        )


def _evaluate_labelled(model: EmbeddingModel, data: Dataset, batch_size: int | None) -> dict[str, float]:
    check_evaluable(data)
    (column,) = data.columns
    vectors = model.encode(column.items, modality=column.modality, batch_size=batch_size)
    classes = data.classes

    def relevant(query: int) -> np.ndarray:
        others = np.arange(len(classes)) != query
        return np.flatnonzero(others & (classes == classes[query]))

    return summarise(ranks_of_relevant(vectors, vectors, relevant, leave_one_out=True), any_relevant=True)


def _evaluate_pairs(model: EmbeddingModel, data: Dataset, batch_size: int | None) -> dict[str, float]:
    anchors, positives = data.columns
    query_of_row, queries = _distinct(anchors)
    document_of_row, documents = _distinct(positives)
    relevant: dict[int, set[int]] = defaultdict(set)
    for query, document in zip(query_of_row, document_of_row, strict=True):
        relevant[query].add(document)
    ranks = ranks_of_relevant(
        model.encode(anchors.take(queries), modality=anchors.modality, side="query", batch_size=batch_size),
        model.encode(positives.take(documents), modality=positives.modality, side="document", batch_size=batch_size),
        lambda query: np.array(sorted(relevant[query])),
    )
    return summarise(ranks, any_relevant=False)


def _distinct(column: Column) -> tuple[list[int], list[int]]:
    """For each row the number of its item among the different ones, and a row of each of those."""
    numbers = column.identities.tolist()
    rows: list[int] = []
    for row, number in enumerate(numbers):
        if number == len(rows):
            rows.append(row)
    return numbers, rows
