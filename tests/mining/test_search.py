"""The nearest documents, block by block, against sorting all scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuner_core.mining.search import nearest
from finetuner_core.mining.task import BarredPairs, Places


def by_sorting(scores: np.ndarray, barred: list[tuple[int, int]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row by a stable sort of the whole row."""
    scores = scores.copy()
    for query, document in barred:
        scores[query, document] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, 1)
    order[best == -np.inf] = -1
    missing = ((0, 0), (0, k - order.shape[1]))
    return np.pad(best, missing, constant_values=-np.inf), np.pad(order, missing, constant_values=-1)


def in_blocks(
    queries: np.ndarray, documents: np.ndarray, barred: list[tuple[int, int]], k: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(barred, np.int64).reshape(-1, 2)
    known = BarredPairs(pairs[:, 0], pairs[:, 1], len(documents))
    blocks = ((at, torch.from_numpy(documents[at : at + size])) for at in range(0, len(documents), size))

    def within(found: range) -> list[Places]:
        return [known.within(range(len(queries)), found)]

    scores, places = nearest(torch.from_numpy(queries), blocks, within, k)
    return scores.numpy(), places.numpy()


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], int, int]:
    """Vectors of few small whole numbers, so that many scores are equal and all are exact."""
    sizes = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    high = draw(st.integers(1, 4))
    queries, documents = (random.integers(-high, high + 1, (size, 2)).astype(np.float32) for size in sizes)
    pairs = st.tuples(st.integers(0, sizes[0] - 1), st.integers(0, sizes[1] - 1))
    return queries, documents, draw(st.lists(pairs, max_size=30)), draw(st.integers(1, 12)), draw(st.integers(1, 41))


@settings(deadline=None, max_examples=300)
@given(cases())
def test_finds_what_sorting_finds(case: tuple[np.ndarray, np.ndarray, list[tuple[int, int]], int, int]) -> None:
    queries, documents, barred, k, size = case
    expected_scores, expected_places = by_sorting(queries @ documents.T, barred, k)
    scores, places = in_blocks(queries, documents, barred, k, size)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(places, expected_places)


@pytest.mark.parametrize("rising", [True, False], ids=["best-last", "best-first"])
def test_an_order_that_is_the_worst_for_it(rising: bool) -> None:
    documents = np.arange(200, dtype=np.float32)[:: 1 if rising else -1, None].copy()
    queries = np.array([[1], [-1], [0]], np.float32)
    expected = by_sorting(queries @ documents.T, [], 7)
    for size in (1, 3, 64, 200):
        np.testing.assert_array_equal(in_blocks(queries, documents, [], 7, size)[1], expected[1])
