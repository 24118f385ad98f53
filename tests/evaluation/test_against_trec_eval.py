"""Every number of every query is that of trec_eval, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytrec_eval = pytest.importorskip("pytrec_eval")
ir_measures = pytest.importorskip("ir_measures")
pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from finetuner_core.data.beir import read_beir, take  # noqa: E402
from finetuner_core.data.dataset import Column  # noqa: E402
from finetuner_core.data.search_set import Judgements, SearchSet  # noqa: E402
from finetuner_core.evaluation.evaluate import _ask  # noqa: E402
from finetuner_core.evaluation.metrics import find_metrics  # noqa: E402

CUTOFFS = (1, 3, 5, 10, 100)
CUT = {"recall": "recall", "precision": "P", "hit_rate": "success", "map": "map_cut", "ndcg": "ndcg_cut"}
UNCUT = {"mrr": "recip_rank", "map": "map", "ndcg": "ndcg", "r_precision": "Rprec"}
# By our name theirs.
TREC = {f"{own}@{k}": f"{theirs}_{k}" for own, theirs in CUT.items() for k in CUTOFFS} | UNCUT
ASKED = {f"{theirs}.{','.join(map(str, CUTOFFS))}" for theirs in CUT.values()} | set(UNCUT.values())
DATA = Path(__file__).parents[3] / "shared" / "data"


def assert_agree(data: SearchSet, query_vectors: np.ndarray, document_vectors: np.ndarray, scores: np.ndarray) -> None:
    """Both measure the same; the scores are those of all documents, from the same vectors."""
    query_ids = take(data.query_ids or (), range(len(data.queries)))
    corpus_ids = take(data.corpus_ids or (), range(len(data.corpus)))
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in zip(
        data.judgements.queries.tolist(),
        data.judgements.documents.tolist(),
        data.judgements.grades.tolist(),
        strict=True,
    ):
        qrels.setdefault(query_ids[query], {})[corpus_ids[document]] = grade
    run = {own: dict(zip(corpus_ids, map(float, row), strict=True)) for own, row in zip(query_ids, scores, strict=True)}
    expected = pytrec_eval.RelevanceEvaluator(qrels, ASKED).evaluate(run)
    found = _ask(data, query_vectors, document_vectors, find_metrics((*TREC, "mrr@3")))
    assert set(found.query_ids) == set(expected)
    for own, theirs in TREC.items():
        values = [expected[query][theirs] for query in found.query_ids]
        np.testing.assert_allclose(found.per_query[own], values, rtol=0, atol=1e-6, err_msg=own)
    first = np.array([expected[query]["recip_rank"] for query in found.query_ids])
    np.testing.assert_allclose(found.per_query["mrr@3"], np.where(first > 0.3, first, 0), rtol=0, atol=1e-6)
    # Not its RR@k, which asks another tool, and that orders ties the other way round.
    measures = {
        "mrr": ir_measures.RR,
        "map": ir_measures.AP,
        "ndcg@10": ir_measures.nDCG @ 10,
        "recall@5": ir_measures.R @ 5,
        "precision@5": ir_measures.P @ 5,
        "hit_rate@1": ir_measures.Success @ 1,
        "r_precision": ir_measures.Rprec,
    }
    means = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    for own, measure in measures.items():
        assert found[own] == pytest.approx(means[measure], abs=1e-6), own


@st.composite
def search_sets(draw: st.DrawFn) -> tuple[SearchSet, np.ndarray, np.ndarray]:
    """Small whole numbers as vectors: their products are exact, and many are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, documents = draw(st.integers(1, 8)), draw(st.integers(1, 150))
    highest, width = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    vectors = [rng.integers(-highest, highest + 1, (rows, width)).astype(np.float32) for rows in (queries, documents)]
    ids = draw(
        st.lists(
            # trec_eval reads ids as C strings.
            st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=4),
            min_size=documents,
            max_size=documents,
            unique=True,
        )
        if documents < 20
        else st.just([f"d{number}" for number in rng.permutation(documents)])
    )
    judged = rng.random((queries, documents)) < draw(st.sampled_from([0.05, 0.3, 1]))
    judged[0, 0] = True
    asking, found = np.nonzero(judged)
    grades = rng.integers(draw(st.integers(-1, 1)), draw(st.integers(1, 4)) + 1, len(asking))
    # trec_eval's nDCG counts for minutes where all grades of a query are below zero.
    first = np.unique(asking, return_index=True)[1]
    grades[first] = np.maximum(grades[first], 0)
    columns = [Column(name, "vector", each) for name, each in zip(("query", "document"), vectors, strict=True)]
    judgements = Judgements.of_triples(asking, found, grades, queries)
    data = SearchSet(columns[0], columns[1], judgements, [f"q{number}" for number in range(queries)], ids)
    return data, vectors[0], vectors[1]


@settings(max_examples=150, deadline=None)
@given(search_sets())
def test_random_cases_with_ties_and_grades(case: tuple[SearchSet, np.ndarray, np.ndarray]) -> None:
    data, queries, documents = case
    assert_agree(data, queries, documents, queries @ documents.T)


def bags_of_letters(column: Column) -> np.ndarray:
    """How often each letter stands in a text, up to 3: near duplicates score exactly the same."""
    texts = [str(text).lower() for text in column.take(range(len(column)))]
    letters = "abcdefghijklmnopqrstuvwxyz"
    return np.array([[min(3, text.count(letter)) for letter in letters] for text in texts], np.float32)


@pytest.mark.parametrize("name", ["banking77", "stsb_de_en", "tldr_commands"])
def test_real_search_sets(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip("the data is not here")
    data = read_beir(DATA / name)
    vectors = [bags_of_letters(column) for column in (data.queries, data.corpus)]
    asked = np.flatnonzero(data.judgements.counts)[:300]
    some = SearchSet(
        data.queries.select(asked),
        data.corpus,
        data.judgements.take(asked),
        take(data.query_ids or (), asked),
        data.corpus_ids,
    )
    scores = vectors[0][asked] @ vectors[1].T
    assert len(np.unique(scores[0])) < scores.shape[1] / 10
    assert_agree(some, vectors[0][asked], vectors[1], scores)
