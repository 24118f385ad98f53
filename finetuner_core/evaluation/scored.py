"""How alike the order of a model's cosines and the order of given scores are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from finetuner_core.data.dataset import Dataset
from finetuner_core.errors import DataError, OptionError
from finetuner_core.evaluation.measures import Correlation, Mean, Measure
from finetuner_core.evaluation.result import Evaluation
from finetuner_core.evaluation.vectors import Encode, shortened
from finetuner_core.values import near, quote

CORRELATIONS = ("spearman", "pearson")


def check_correlations(names: Sequence[str]) -> None:
    """Whether all names are of correlations.

    Raises:
        OptionError: if one is not.
    """
    for name in names:
        if name not in CORRELATIONS:
            raise OptionError(
                f"There is no metric {quote(name)} of scored data.{near(name, CORRELATIONS)}\n"
                f"There are {' and '.join(CORRELATIONS)}."
            )


def correlate(encode: Encode, data: Dataset, metrics: Sequence[str] | None) -> Callable[[int | None], Evaluation]:
    """Correlates the cosines of anchors and candidates with the scores.

    With one candidate a row, over all rows. With several, over the candidates of each row, and the mean over rows; a
    row whose scores are all the same has no order, and is left out.

    Args:
        encode: what makes vectors of a column.
        data: scored data.
        metrics: `spearman`, `pearson`, or both, which is the default.

    Returns:
        What gives the evaluation for a width of the vectors.
    """
    scores = np.asarray(data.scores, np.float64)
    rows = np.flatnonzero((scores != scores[:, :1]).any(axis=1)) if scores.shape[1] > 1 else np.arange(len(scores))
    names = CORRELATIONS if metrics is None else metrics
    anchors, *candidates = (encode(column, side) for column, side in zip(data.columns, data.sides, strict=True))

    def measured(width: int | None) -> Evaluation:
        asking = shortened(anchors, width)
        cosines = np.stack([_dot(asking, shortened(each, width)) for each in candidates], axis=1)[rows]
        if not np.isfinite(cosines).all():
            raise DataError("The model's vectors hold a NaN or an infinite value, so nothing can be compared.")
        measures: dict[str, Measure] = {}
        for name in names:
            ranked = name == "spearman"
            if scores.shape[1] == 1:
                measures[name] = Correlation(cosines[:, 0], scores[:, 0], ranked=ranked)
            else:
                each = zip(cosines, scores[rows], strict=True)
                measures[name] = Mean(np.array([Correlation(*both, ranked=ranked).rows.mean() for both in each]))
        ids = [str(row) for row in rows.tolist()]
        unit = "pairs" if scores.shape[1] == 1 else "queries"
        queries = data.columns[0].select(rows)
        return Evaluation(measures, ids, queries=queries, left_out=len(scores) - len(rows), unit=unit)

    return measured


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("nd,nd->n", first, second, dtype=np.float64)
    return products
