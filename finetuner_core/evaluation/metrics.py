"""Retrieval metrics of each query, from the ranks at which its relevant documents were found.

The formulas are those of trec_eval (https://github.com/usnistgov/trec_eval), which are those of Manning, Raghavan and
Schütze, Introduction to Information Retrieval (2008), chapter 8, https://nlp.stanford.edu/IR-book/. Where nothing is
relevant to a query each metric is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from finetuner_core.errors import OptionError
from finetuner_core.evaluation.retrieval import Found
from finetuner_core.values import near, quote

DEFAULT = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map")
# Musgrave et al. 2020, A Metric Learning Reality Check, https://arxiv.org/abs/2003.08505, recommends the last two.
LABELLED = (*DEFAULT, "r_precision", "map@r")

Metric = Callable[[Found], np.ndarray]


def recall(found: Found, k: float) -> np.ndarray:
    """The share of the relevant documents that are among the first k."""
    return _share(_sum(found, found.ranks <= k), _relevant(found))


def precision(found: Found, k: float) -> np.ndarray:
    """The share of the first k that are relevant."""
    return _sum(found, found.ranks <= k) / k


def hit_rate(found: Found, k: float) -> np.ndarray:
    """1 if a relevant document is among the first k, else 0."""
    return (_sum(found, found.ranks <= k) > 0).astype(np.float64)


def mrr(found: Found, k: float) -> np.ndarray:
    """1 over the rank of the first relevant document, 0 if that is beyond k."""
    return _sum(found, (_number(found) == 1) & (found.ranks <= k), 1 / found.ranks)


def average_precision(found: Found, k: float) -> np.ndarray:
    """The mean, over the relevant documents, of the precision at the rank of each; 0 for those beyond k."""
    return _share(_sum(found, found.ranks <= k, _number(found) / found.ranks), _relevant(found))


def ndcg(found: Found, k: float) -> np.ndarray:
    """The gain of the first k over that of the best order, where a document gains grade / log2(rank + 1).

    Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418.
    """
    best = found.grades[np.lexsort((-found.grades, found.query))]
    ranks = _number(found)
    gain = _sum(found, found.ranks <= k, found.grades / np.log2(found.ranks + 1))
    return _share(gain, _sum(found, ranks <= k, best / np.log2(ranks + 1)))


def r_precision(found: Found) -> np.ndarray:
    """The share of the first R that are relevant, where R is how many are relevant at all."""
    relevant = _relevant(found)
    return _share(_sum(found, found.ranks <= relevant[found.query]), relevant)


def average_precision_at_r(found: Found) -> np.ndarray:
    """`average_precision` with k = R, how many are relevant at all: the MAP@R of metric learning."""
    relevant = _relevant(found)
    return _share(_sum(found, found.ranks <= relevant[found.query], _number(found) / found.ranks), relevant)


_CUT: Mapping[str, Callable[[Found, float], np.ndarray]] = {
    "recall": recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "map": average_precision,
    "ndcg": ndcg,
}
_UNCUT: Mapping[str, Metric] = {"r_precision": r_precision, "map@r": average_precision_at_r}
_EITHER = ("mrr", "map", "ndcg")


def find_metrics(names: Sequence[str], *, any_relevant: bool = False) -> dict[str, Metric]:
    """The functions behind some names.

    Args:
        names: such as `recall@10`, `ndcg@10`, `map`, `r_precision`.
        any_relevant: what recall@k means. False: the share of a query's relevant documents that are among the first k.
            True: whether at least one is, the Recall@K of metric learning (Song et al. 2016,
            https://arxiv.org/abs/1511.06452). Where each query has one relevant document they are the same.

    Returns:
        By name, in the order of the names, what gives float64 (Q,) for what Q queries found, between 0 and 1.

    Raises:
        OptionError: if there is no such metric.
    """
    return {name: _find_metric(name, any_relevant) for name in names}


def _find_metric(name: str, any_relevant: bool) -> Metric:
    if name in _UNCUT:
        return _UNCUT[name]
    base, at, cutoff = name.partition("@")
    k = int(cutoff) if cutoff.isdecimal() else 0
    if base not in _CUT or (at and k < 1) or not (at or base in _EITHER):
        # A cutoff is compared as k, so that what is misspelt is the name.
        known = [*_EITHER, *(f"{each}@k" for each in _CUT), *_UNCUT]
        meant = near(f"{base}@k" if at and cutoff not in ("r", "k") else name, known).replace("@k", f"@{k or 10}")
        raise OptionError(
            f"There is no metric {quote(name)}.{meant}\n"
            f"There are {', '.join(f'{each}@k' for each in _CUT)} with a k of 1 or more, and "
            f"{', '.join((*_EITHER, *_UNCUT))}."
        )
    cut = _CUT["hit_rate" if any_relevant and base == "recall" else base]
    return lambda found: cut(found, k if at else np.inf)


def _sum(found: Found, counted: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """For each query the sum of the values that count, float64 (Q,)."""
    weights = counted.astype(np.float64) if values is None else np.where(counted, values, 0.0)
    return np.bincount(found.query, weights, found.size)


def _relevant(found: Found) -> np.ndarray:
    return np.bincount(found.query, minlength=found.size)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    share: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return share


def _number(found: Found) -> np.ndarray:
    """For each relevant document how many of its query's were found up to it, int64 (R,)."""
    before = np.searchsorted(found.query, np.arange(found.size))
    number: np.ndarray = np.arange(len(found.query)) - before[found.query] + 1
    return number
