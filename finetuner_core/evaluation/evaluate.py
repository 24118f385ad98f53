"""How well a model searches data, or tells how near two things are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.beir import is_beir, read_beir, take
from finetuner_core.data.dataset import Cells, Column, Dataset
from finetuner_core.data.findings import check_evaluable
from finetuner_core.data.forms import understand, understand_splits
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.tables import read_table
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError, OptionError
from finetuner_core.evaluation.measures import Mean
from finetuner_core.evaluation.metrics import DEFAULT, LABELLED, Metric, find_metrics
from finetuner_core.evaluation.result import Evaluation
from finetuner_core.evaluation.retrieval import Relevance, SameLabel, search
from finetuner_core.evaluation.scored import check_correlations, correlate
from finetuner_core.evaluation.vectors import Encode, shortened
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import BackboneInfo, Side, quote


def evaluate(
    model: EmbeddingModel | str | Path,
    data: object,
    *,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    metrics: Sequence[str] | None = None,
    widths: Sequence[int] = (),
    batch_size: int | None = None,
    skip_bad_items: bool = False,
    encoding: str | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measures how well a model finds what belongs together.

    Labelled data: every item asks for those of its label among all others. Pairs: every anchor asks for its positives
    among all positives; for text with images, the text asks for the image, and the image for the text. A search set:
    every query asks for what is relevant to it in the corpus. Scored data: how alike the order of the model's cosines
    and that of the scores are.

    Args:
        model: a model, the folder of a saved one, or a name.
        data: a data set or a search set; a file or folder; a folder in the layout of BEIR, or the file of judgements in
            one; or what is in memory (a frame of pandas, a list of rows).
        columns: for each name that Finetuner knows, the header in the file.
        split_column: a column of the file; only rows where it holds `test`, `val`, `dev` or `eval` are searched.
        metrics: what is measured, such as `recall@20`, `ndcg@10`, `map`; for scored data `spearman` and `pearson`.
        widths: numbers of components; besides the whole vectors, their first ones alone are measured, brought to
            length 1, as Matryoshka models are trained for. Each is a part of the result, named `width 64`.
        batch_size: how many items are encoded at a time.
        skip_bad_items: whether images that cannot be read, and rows that cannot be used, are left out instead of ending
            the run; a line on stderr says how many were.
        encoding: of a file of text that is neither UTF-8 nor says so itself, such as `"cp1252"`.
        device: where a model that is not built yet computes: `cuda`, `mps`, `cpu`, or `auto` for the best there is.

    Returns:
        The numbers by name, as `finetuner_core.evaluation.metrics` defines them, with what each query contributes and
        with intervals. Where no metrics are named these are `recall@1`, `recall@5`, `recall@10`, `mrr`, `ndcg@10` and
        `map`; for labelled data `r_precision` and `map@r` as well.

    Raises:
        FinetunerError: if the model or the data cannot be had, or do not fit.
    """
    info = model.info if isinstance(model, EmbeddingModel) else find_row(model_name(model))
    skipped, unreadable, where = 0, 0, None
    if not isinstance(data, Dataset | SearchSet):
        data, skipped, where = _read(data, info, split_column, columns, skip_bad_items, encoding)
    if isinstance(data, Dataset):
        data, unreadable = usable(data, skip_bad_items=skip_bad_items, where=where)
    for count, what in ((skipped, "rows that cannot be used"), (unreadable, "images that cannot be read")):
        if count:
            print(f"Skipped {count:,} {what}", file=sys.stderr)
    check_metrics(data, metrics)
    if not isinstance(model, EmbeddingModel):
        model = build_model(model_name(model)).to(choose_device(device))
    return evaluate_dataset(model, data, metrics=metrics, widths=widths, batch_size=batch_size)


def evaluate_dataset(
    model: EmbeddingModel,
    data: Dataset | SearchSet,
    *,
    metrics: Sequence[str] | None = None,
    widths: Sequence[int] = (),
    batch_size: int | None = None,
) -> Evaluation:
    """`evaluate` for data that is known to be readable."""
    check_evaluable(data)
    check_metrics(data, metrics)
    for width in widths:
        if not 1 <= width <= model.output_dim:
            raise OptionError(f"widths has {width}; the model's vectors are {model.output_dim} wide.")

    def encode(column: Column, side: Side | None) -> np.ndarray:
        vectors = model.encode(column.items, modality=column.modality, side=side, batch_size=batch_size)
        wrong = np.flatnonzero(~np.isfinite(vectors.sum(axis=1)))
        if len(wrong):
            raise DataError(
                f"The model gives {len(wrong):,} of {len(vectors):,} items of {column.name} a vector of NaN, "
                f"such as {quote(column.shown(int(wrong[0])))}.\n"
                "Its weights, or what it is fed, hold a NaN or an infinite value."
            )
        return vectors

    if isinstance(data, SearchSet):
        measured = _evaluate_search(encode, data, metrics)
    elif data.form == "labelled":
        measured = _evaluate_labelled(encode, data, metrics)
    elif data.form == "pairs":
        measured = _evaluate_search(encode, SearchSet.of_pairs(data), metrics)
    else:
        measured = correlate(encode, data, metrics)
    whole = measured(None)
    return whole.with_parts({f"width {width}": measured(width) for width in widths})


def _read(
    data: object,
    info: BackboneInfo,
    split_column: str | None,
    columns: Mapping[str, str] | None,
    skip_bad_items: bool,
    encoding: str | None,
) -> tuple[Dataset | SearchSet, int, Callable[[int], str] | None]:
    """The data, how many of its rows were left out, and what says where a row stands."""
    if is_beir(data):
        if "text" not in info.modalities:
            raise DataError(
                f"{info.name} takes {' and '.join(f'{each}s' for each in info.modalities)}; {data} has texts."
            )
        if columns or split_column:
            raise OptionError(f"{data} has the layout of BEIR: columns and split_column do not apply to it.")
        return read_beir(data), 0, None
    table = read_table(data, encoding)
    if split_column is None:
        reading = understand(table, info, columns, skip_bad_items=skip_bad_items)
    else:
        _, reading = understand_splits(table, info, split_column, columns, skip_bad_items=skip_bad_items)
    return reading.dataset, reading.skipped, reading.where


def check_metrics(data: Dataset | SearchSet, names: Sequence[str] | None) -> None:
    """Whether all metrics are such as data of that form has.

    Raises:
        OptionError: if one is not.
    """
    if isinstance(data, Dataset) and data.form == "scored":
        check_correlations(names or ())
    else:
        find_metrics(names or ())


def _evaluate_labelled(
    encode: Encode, data: Dataset, metrics: Sequence[str] | None
) -> Callable[[int | None], Evaluation]:
    (column,) = data.columns
    asking = np.flatnonzero(np.bincount(data.classes)[data.classes] > 1)
    relevance = SameLabel(data.classes, asking)
    functions = find_metrics(LABELLED if metrics is None else metrics, any_relevant=True)
    vectors = encode(column, None)

    def measured(width: int | None) -> Evaluation:
        corpus = shortened(vectors, width)
        measures = _measure(_some(corpus, asking), corpus, relevance, functions, own=asking)
        ids = [str(row) for row in asking.tolist()]
        return Evaluation(measures, ids, queries=column.select(asking), left_out=len(data) - len(asking))

    return measured


def _evaluate_search(
    encode: Encode, data: SearchSet, metrics: Sequence[str] | None
) -> Callable[[int | None], Evaluation]:
    """The queries ask the corpus; where the two are of different modalities, the corpus asks them as well."""
    functions = find_metrics(DEFAULT if metrics is None else metrics)
    both = data.queries.modality != data.corpus.modality
    queries = data.queries if both else data.queries.select(np.flatnonzero(data.judgements.counts))
    query_vectors, document_vectors = encode(queries, "query"), encode(data.corpus, "document")

    def measured(width: int | None) -> Evaluation:
        asking, found = shortened(query_vectors, width), shortened(document_vectors, width)
        forward = _ask(data, asking, found, functions)
        if not both:
            return forward
        direction = f"{data.corpus.modality}-to-{data.queries.modality}"
        return forward.with_parts({direction: _ask(data.reversed(), found, asking, functions)})

    return measured


def _ask(data: SearchSet, queries: np.ndarray, corpus: np.ndarray, functions: Mapping[str, Metric]) -> Evaluation:
    """Those queries that have judgements; their vectors are given, or those of all."""
    asking = np.flatnonzero(data.judgements.counts)
    ids = data.corpus_ids
    measures = _measure(
        _some(queries, asking),
        corpus,
        data.judgements.take(asking),
        functions,
        tie_order=None if ids is None else lambda: _descending(ids),
    )
    names: Sequence[object] = asking.tolist() if data.query_ids is None else take(data.query_ids, asking)
    left_out = len(data.queries) - len(asking)
    return Evaluation(measures, [str(name) for name in names], queries=data.queries.select(asking), left_out=left_out)


def _measure(
    queries: np.ndarray,
    corpus: np.ndarray,
    relevance: Relevance,
    functions: Mapping[str, Metric],
    *,
    own: np.ndarray | None = None,
    tie_order: Callable[[], np.ndarray] | None = None,
) -> dict[str, Mean]:
    values: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    for found in search(queries, corpus, relevance, own=own, tie_order=tie_order):
        for name, function in functions.items():
            values[name].append(function(found))
    return {name: Mean(np.concatenate(blocks)) for name, blocks in values.items()}


def _descending(ids: Sequence[str] | Cells) -> np.ndarray:
    """The place of each id, the last by its letters first: as trec_eval orders documents that score the same."""
    names = take(ids, range(len(ids)))
    places = np.empty(len(names), np.int64)
    places[sorted(range(len(names)), key=lambda row: str(names[row]), reverse=True)] = np.arange(len(names))
    return places


def _some(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The vectors of some rows, or all that there are where they are those already."""
    return vectors if len(rows) == len(vectors) else vectors[rows]
