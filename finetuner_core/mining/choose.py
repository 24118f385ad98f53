"""The last stage: takes negatives from what was found, and writes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from finetuner_core.errors import DataError
from finetuner_core.mining.report import MiningResult, reasons
from finetuner_core.mining.rules import Rules
from finetuner_core.mining.stages import Found
from finetuner_core.mining.task import Task
from finetuner_core.mining.write import as_cells, writing

_AT_ONCE = 4096


def choose(
    task: Task, rules: Rules, found: Found, scratch: Path, file: Path, *, scores: bool, seed: int
) -> MiningResult:
    """Writes each row that has enough negatives, first beside the file and then in its place.

    Args:
        task: what is mined.
        rules: which negatives are taken.
        found: the candidates.
        scratch: a file on the same disk.
        file: where the rows are to be.
        scores: whether to write scores as well.
        seed: what random choices follow from.

    Raises:
        DataError: if no row has enough.
    """
    queries, documents = task.rows
    excluded = Counter({"known": len(task.known), "same": len(task.same)})
    rows_written, positive_sum, negative_sum = 0, 0.0, 0.0
    with writing(scratch, file.suffix.lower()) as write:
        for start in range(0, len(queries), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(queries)))
            candidates, positives = found.scores[queries[rows]], found.positives[rows][:, 0]
            random = np.random.default_rng((seed, start))
            enough, taken, counts = rules.choose(candidates, positives, random)
            excluded.update(counts)
            if not enough.any():
                continue
            rows, taken, positives = rows[enough], taken[enough], positives[enough]
            chosen = np.take_along_axis(found.places[queries[rows]], taken, 1)
            of_chosen = np.take_along_axis(candidates[enough], taken, 1)
            block = _block(task, queries[rows], np.column_stack([documents[rows], chosen]), file.parent)
            if scores:
                for number, values in enumerate(np.column_stack([positives, of_chosen]).T, 1):
                    block[f"score_{number}"] = values.tolist()
            write(block)
            rows_written += len(rows)
            positive_sum += float(positives.sum(dtype=np.float64))
            negative_sum += float(of_chosen.sum(dtype=np.float64))
    if not rows_written:
        raise DataError(
            f"No row has {rules.negatives} negatives left: {reasons(excluded)}.\n"
            f"Look at more ranks (top_k), or loosen the margins; what was computed is kept in {scratch.parent}."
        )
    replaced = file.exists()
    scratch.replace(file)
    return MiningResult(
        path=file,
        replaced=replaced,
        queries=len(task.queries),
        documents=len(task.documents),
        rows=rows_written,
        negatives=rows_written * rules.negatives,
        short=len(queries) - rows_written,
        excluded=dict(excluded),
        positive_score=positive_sum / rows_written,
        negative_score=negative_sum / (rows_written * rules.negatives),
    )


def _block(task: Task, queries: np.ndarray, documents: np.ndarray, folder: Path) -> dict[str, list[object]]:
    """Columns of rows: queries (B,), and documents (B, 1 + N), the positive first."""
    block = {task.names[0]: as_cells(task.queries.take(queries), task.queries.modality, folder)}
    cells = as_cells(task.documents.take(documents.T.ravel()), task.documents.modality, folder)
    for number in range(documents.shape[1]):
        name = task.names[1] if number == 0 else f"negative_{number}"
        block[name] = cells[number * len(queries) : (number + 1) * len(queries)]
    return block
