from __future__ import annotations

import numpy as np
import pytest

from finetuner_core.evaluation import retrieval
from finetuner_core.evaluation.retrieval import ranks_of_relevant


def whole_numbers(rows: int, seed: int) -> np.ndarray:
    """Vectors whose products are exact in any order of adding, with many ties among them."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, 5)).astype(np.float32)


def naive(
    queries: np.ndarray, corpus: np.ndarray, relevant: list[np.ndarray], *, leave_one_out: bool
) -> list[list[int]]:
    """Sorts the corpus for each query and walks down: by score, then by position."""
    found = []
    for number, query in enumerate(queries):
        scored = [
            (-sum(float(a) * float(b) for a, b in zip(query, document, strict=True)), position)
            for position, document in enumerate(corpus)
            if not (leave_one_out and position == number)
        ]
        order = [position for _, position in sorted(scored)]
        ranks = sorted(order.index(position) + 1 for position in relevant[number])
        if ranks:
            found.append(ranks)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("at_a_time", [None, 1, 40, 64, 1000])
@pytest.mark.parametrize("leave_one_out", [True, False])
def test_agrees_with_naive_sorting_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, seed: int, at_a_time: int | None, leave_one_out: bool
) -> None:
    if at_a_time is not None:
        monkeypatch.setattr(retrieval, "_SCORES_AT_A_TIME", at_a_time)
    rng = np.random.default_rng(seed)
    corpus = whole_numbers(32, seed)
    queries = corpus if leave_one_out else whole_numbers(13, seed + 100)
    relevant = [
        np.setdiff1d(rng.choice(32, rng.integers(0, 9), replace=False), [number] if leave_one_out else [])
        for number in range(len(queries))
    ]
    found = list(ranks_of_relevant(queries, corpus, lambda query: relevant[query], leave_one_out=leave_one_out))
    assert [ranks.tolist() for ranks in found] == naive(queries, corpus, relevant, leave_one_out=leave_one_out)
    assert all(ranks.dtype == np.int64 for ranks in found)


def test_ties_are_broken_by_position_and_nothing_finds_itself() -> None:
    same = np.ones((4, 2), dtype=np.float32)

    def others(query: int) -> np.ndarray:
        return np.array([position for position in range(4) if position != query])

    assert [ranks.tolist() for ranks in ranks_of_relevant(same, same, others, leave_one_out=True)] == [[1, 2, 3]] * 4
    assert [ranks.tolist() for ranks in ranks_of_relevant(same, same, lambda query: np.array([query]))] == [
        [1],
        [2],
        [3],
        [4],
    ]


def test_a_query_without_relevant_items_is_passed_over() -> None:
    vectors = np.eye(3, dtype=np.float32)
    none = np.array([], dtype=int)
    found = ranks_of_relevant(vectors, vectors, lambda query: np.array([2]) if query == 2 else none)
    assert [ranks.tolist() for ranks in found] == [[1]]


def test_what_it_is_given_stays_as_it_is() -> None:
    vectors = whole_numbers(6, 0)
    before = vectors.copy()
    list(ranks_of_relevant(vectors, vectors, lambda query: np.array([5 - query]), leave_one_out=True))
    assert np.array_equal(vectors, before)
