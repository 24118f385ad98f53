"""`mine`: from a model and data to a file with hard negatives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.dataset import Column
from finetuner_core.errors import DataError, FolderError, OptionError
from finetuner_core.interfaces import CrossEncoder
from finetuner_core.mining.choose import choose
from finetuner_core.mining.fingerprint import made_from
from finetuner_core.mining.read import read_task
from finetuner_core.mining.report import MiningResult, Progress
from finetuner_core.mining.rerank import load_cross_encoder
from finetuner_core.mining.rules import Rules, Sampling
from finetuner_core.mining.stages import find
from finetuner_core.mining.work import Work
from finetuner_core.mining.write import as_cells, check_out
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel


def mine(
    model: EmbeddingModel | str | Path,
    data: Any,
    out: str | Path,
    *,
    corpus: Column | str | Path | None = None,
    negatives: int = 3,
    top_k: int = 50,
    skip_top: int = 0,
    relative_margin: float | None = 0.05,
    absolute_margin: float | None = None,
    min_score: float | None = None,
    max_score: float | None = None,
    sampling: Sampling = "top",
    cross_encoder: CrossEncoder | str | Path | None = None,
    scores: bool = False,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    batch_size: int | None = None,
    skip_bad_items: bool = False,
    encoding: str | None = None,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> MiningResult:
    """Finds hard negatives: documents near a query that are not known to belong to it.

    Every different anchor is searched for by cosine similarity among all different positives, the hard negatives that
    the data have, and the corpus. What is known to belong to it, and what is the same text, image or vector, is never
    taken. A labelled item asks for the others, those of its label left out.

    The vectors lie in a folder beside `out`, `.NAME.mining`, until the file is written: a run that was stopped goes on
    there when it is called again in the same way, with whatever rules. The memory used does not grow with the corpus
    but for some tens of bytes an item.

    Args:
        model: a model, the folder of a saved one, or a name.
        data: a `Dataset` of pairs or labelled items, a `SearchSet`, or a file, folder or frame of such; of a folder
            in the layout of BEIR its training judgements.
        out: the file to write, `.csv`, `.jsonl` or `.parquet`: a row for each pair, or each labelled item, with its
            negatives behind it (`negative_1`, ...). One that is there is replaced.
        corpus: more documents: a column, or a file of it.
        negatives: how many for each row. Rows with fewer are left out, and counted.
        top_k: the last rank at which a negative is looked for.
        skip_top: how many of the first ranks are left out.
        relative_margin: a negative scores below its row's positive by this share of it; `None` for no such rule.
        absolute_margin: a negative scores below its row's positive by this much; `None` for no such rule.
        min_score: what scores less is no negative.
        max_score: what scores more is no negative.
        sampling: which are taken of those that are left: `top`, the nearest, or `random`.
        cross_encoder: one, or the name of one, that scores the first `top_k` anew; margins and limits are then of its
            scores, and so is the order in which negatives are taken.
        scores: whether to write the score of the positive and of each negative (`score_1`, ...), for distillation.
        columns: for each name that Finetuner knows, the header in the file.
        split_column: a column of the file; only rows where it holds `train` are mined for.
        batch_size: how many items are computed at a time.
        skip_bad_items: whether rows that cannot be used are left out instead of ending the run.
        encoding: of files of text that are neither UTF-8 nor say so themselves, such as `"cp1252"`.
        device: where to compute: `cuda`, `mps`, `cpu`, or `auto` for the best there is. A model that is built already
            stays where it is.
        seed: what every random choice follows from.
        quiet: whether to print nothing.

    Returns:
        What was written, and what was left out for which reason.

    Raises:
        FinetunerError: if the model or the data cannot be had, do not fit, or leave nothing to mine; or if the file
            cannot be written.
    """
    rules = Rules(
        negatives, top_k, skip_top, relative_margin, absolute_margin, min_score, max_score, sampling
    )  # fmt: skip
    info = model.info if isinstance(model, EmbeddingModel) else find_row(model_name(model))
    file = check_out(out, info.modalities)
    for given in (data, corpus):
        if isinstance(given, str | Path) and Path(given).expanduser().absolute() == file:
            raise FolderError(f"{out} holds what is to be mined for, and would be replaced.\nWrite to another file.")
    task, skipped = read_task(
        info,
        data,
        corpus,
        columns=columns,
        split_column=split_column,
        skip_bad_items=skip_bad_items,
        encoding=encoding,
        seed=seed,
    )
    if len(task.documents) <= skip_top + negatives:
        raise DataError(
            f"There are {len(task.documents):,} different documents to choose from, too few for {negatives} negatives"
            f"{f' behind the first {skip_top}' if skip_top else ''} beside each positive.\n"
            "Give more of them with a corpus, or ask for fewer."
        )
    for column in (task.queries, task.documents):
        as_cells(column.take([0]), column.modality, file.parent)  # what cannot be written is refused before the work
    progress = Progress(quiet=quiet)
    progress.task(task, skipped)
    if not isinstance(model, EmbeddingModel):
        model = build_model(model_name(model)).to(choose_device(device))
    if isinstance(cross_encoder, str | Path):
        cross_encoder = load_cross_encoder(str(cross_encoder)).to(model.device)
    if cross_encoder is not None and {task.queries.modality, task.documents.modality} != {"text"}:
        raise OptionError("A cross-encoder reads a query and a document as texts; these are not both texts.")
    try:
        work = Work(file.with_name(f".{file.name}.mining"), made_from(model, task, batch_size))
        progress.work(work)
        found = find(model, task, rules.top_k, cross_encoder, work, batch_size=batch_size, progress=progress)
        result = choose(task, rules, found, work.folder / f"out{file.suffix}", file, scores=scores, seed=seed)
        work.remove()
    except OSError as error:
        raise FolderError(f"{out} cannot be written: {error.strerror or error}.") from None
    progress.result(result)
    return result
