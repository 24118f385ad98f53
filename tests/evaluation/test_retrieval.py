from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.search_set import Judgements
from finetuner_core.errors import DataError
from finetuner_core.evaluation import retrieval
from finetuner_core.evaluation.retrieval import SameLabel, search


def whole_numbers(rows: int, seed: int) -> np.ndarray:
    """Vectors whose products are exact in any order of adding, with many ties among them."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, 5)).astype(np.float32)


def random_judgements(queries: int, documents: int, seed: int, forbidden: np.ndarray | None = None) -> Judgements:
    """Some grades from -1 to 3; for some queries there are none."""
    rng = np.random.default_rng(seed)
    triples = []
    for query in range(queries):
        drawn = set(rng.choice(documents, rng.integers(0, 9), replace=False).tolist())
        drawn -= set() if forbidden is None else {int(forbidden[query])}
        triples += [(query, document, rng.integers(-1, 4)) for document in drawn]
    asking, judged, grades = np.array(triples, np.int64).reshape(-1, 3).T
    shuffled = rng.permutation(len(asking))
    return Judgements.of_triples(asking[shuffled], judged[shuffled], grades[shuffled], queries)


def naive(
    queries: np.ndarray, corpus: np.ndarray, judgements: Judgements, own: np.ndarray | None, places: list[int]
) -> list[list[tuple[int, int]]]:
    """Sorts the corpus for each query and walks down: by score, then by place. Ranks and grades of what is relevant."""
    found = []
    for number, query in enumerate(queries):
        scored = sorted(
            (-sum(float(a) * float(b) for a, b in zip(query, document, strict=True)), places[position], position)
            for position, document in enumerate(corpus)
            if own is None or own[number] != position
        )
        order = [position for _, _, position in scored]
        start, end = judgements.offsets[number : number + 2]
        judged = zip(judgements.documents[start:end].tolist(), judgements.grades[start:end].tolist(), strict=True)
        found.append(sorted((order.index(position) + 1, grade) for position, grade in judged if grade > 0))
    return found


def ranks(*arguments: object, **options: object) -> list[list[tuple[int, int]]]:
    """What `search` finds, query by query."""
    result: list[list[tuple[int, int]]] = []
    for block in search(*arguments, **options):  # type: ignore[arg-type]
        rows: list[list[tuple[int, int]]] = [[] for _ in range(block.size)]
        for query, rank, grade in zip(block.query, block.ranks, block.grades, strict=True):
            rows[query].append((int(rank), int(grade)))
        assert block.ranks.dtype == np.int64
        result += rows
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cut", [None, (1, 1, 1), (3, 7, 5), (5, 32, 1000), (64, 5, 9)])
@pytest.mark.parametrize("sorting", [0, 512, 1 << 40])
@pytest.mark.parametrize("ordered", [True, False])
def test_agrees_with_naive_sorting_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, seed: int, cut: tuple[int, int, int] | None, sorting: int, ordered: bool
) -> None:
    monkeypatch.setattr(retrieval, "_SORTING", sorting)
    if cut is not None:
        for name, value in zip(("_QUERIES", "_DOCUMENTS", "_JUDGEMENTS"), cut, strict=True):
            monkeypatch.setattr(retrieval, name, value)
    rng = np.random.default_rng(seed)
    queries, corpus = whole_numbers(13, seed + 100), whole_numbers(32, seed)
    own = rng.integers(0, 32, 13) if seed % 2 else None
    judgements = random_judgements(13, 32, seed, own)
    places = rng.permutation(32) if ordered else np.arange(32)
    expected = naive(queries, corpus, judgements, own, places.tolist())
    assert any(expected)
    found = ranks(queries, corpus, judgements, own=own, tie_order=(lambda: places) if ordered else None)
    assert found == expected


def test_where_everything_scores_the_same_the_place_decides() -> None:
    same = np.ones((6, 2), np.float32)
    judgements = Judgements.of_triples(np.zeros(6, np.int64), np.arange(6), np.arange(6), 1)
    by_position = [(rank, rank - 1) for rank in range(2, 7)]
    assert ranks(same[:1], same, judgements) == [by_position]
    backwards = ranks(same[:1], same, judgements, tie_order=lambda: np.arange(6)[::-1])
    assert backwards == [[(rank, 6 - rank) for rank in range(1, 6)]]


def test_the_order_of_ties_is_not_asked_for_where_there_are_none() -> None:
    def refuse() -> np.ndarray:
        raise AssertionError

    judgements = Judgements.of_triples(np.arange(4), np.arange(4), np.ones(4, np.int64), 4)
    assert (
        ranks(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), judgements, tie_order=refuse) == [[(1, 1)]] * 4
    )


def test_a_document_is_never_counted_against_itself() -> None:
    """Real vectors, whose products depend on how they are added up, cut so that blocks differ in shape."""
    rng = np.random.default_rng(0)
    queries, corpus = (rng.normal(size=(rows, 37)).astype(np.float32) for rows in (67, 331))
    relevant = np.arange(67) * 4
    judgements = Judgements.of_triples(np.arange(67), relevant, np.ones(67, np.int64), 67)
    exact = queries.astype(np.float64) @ corpus.astype(np.float64).T
    own = exact[np.arange(67), relevant][:, None]
    assert np.sort(abs(exact - own), axis=1)[:, 1].min() > 1e-5  # so far apart that float32 orders them as well
    expected = [[(int(rank), 1)] for rank in (exact > own).sum(axis=1) + 1]
    for documents in (331, 100, 17):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retrieval, "_DOCUMENTS", documents)
            patch.setattr(retrieval, "_QUERIES", 10)
            assert ranks(queries, corpus, judgements) == expected


@pytest.mark.parametrize("seed", range(5))
def test_items_of_the_same_label_but_for_themselves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 6, 25)
    asking = np.sort(rng.choice(25, 11, replace=False))
    relevance = SameLabel(classes, asking)
    expected = [[other for other in range(25) if classes[other] == classes[item] and other != item] for item in asking]
    assert relevance.counts.tolist() == [len(others) for others in expected]
    for rows in (np.arange(11), np.arange(4, 9), np.array([3])):
        judged = relevance.take(rows)
        assert set(judged.grades.tolist()) <= {1}
        parts = np.split(judged.documents, judged.offsets[1:-1])
        assert [part.tolist() for part in parts] == [expected[row] for row in rows]


def test_a_corpus_may_lie_in_a_file(tmp_path: Path) -> None:
    corpus = whole_numbers(40, 0)
    np.save(tmp_path / "corpus.npy", corpus)
    judgements = random_judgements(7, 40, 0)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    assert ranks(corpus[:7], mapped, judgements) == ranks(corpus[:7], corpus, judgements)


def test_vectors_that_are_no_numbers_find_nothing() -> None:
    corpus = whole_numbers(5, 0)
    corpus[2, 0] = np.nan
    judgements = Judgements.of_triples(np.zeros(1, np.int64), np.full(1, 2), np.ones(1, np.int64), 1)
    with pytest.raises(DataError, match="hold a NaN"):
        ranks(corpus[:1], corpus, judgements)


def test_what_it_is_given_stays_as_it_is() -> None:
    vectors = whole_numbers(6, 0)
    before = vectors.copy()
    relevance = SameLabel(np.arange(6) % 2, np.arange(6))
    ranks(vectors, vectors, relevance, own=np.arange(6))
    assert np.array_equal(vectors, before)
