from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.search_set import Judgements, SearchSet
from finetuner_core.errors import DataError


def texts(name: str, items: list[str]) -> Column:
    return Column(name, "text", items)


def triples(judgements: Judgements) -> list[tuple[int, int, int]]:
    return list(
        zip(judgements.queries.tolist(), judgements.documents.tolist(), judgements.grades.tolist(), strict=True)
    )


def random_triples(seed: int, queries: int, documents: int) -> list[tuple[int, int, int]]:
    rng = random.Random(seed)
    pairs = [(query, document) for query in range(queries) for document in range(documents)]
    return [(*pair, rng.randint(-1, 3)) for pair in rng.sample(pairs, rng.randint(0, len(pairs)))]


def judge(given: list[tuple[int, int, int]], queries: int) -> Judgements:
    asking, documents, grades = np.array(given, np.int64).reshape(-1, 3).T
    return Judgements.of_triples(asking, documents, grades, queries)


@pytest.mark.parametrize("seed", range(20))
def test_judgements_in_any_order(seed: int) -> None:
    given = random_triples(seed, 5, 7)
    judgements = judge(given, 5)
    assert triples(judgements) == sorted(given)
    assert judgements.counts.tolist() == [sum(query == own for own, _, _ in given) for query in range(5)]
    for queries in ([], [4], [3, 0, 3]):
        taken = judgements.take(np.array(queries, np.int64))
        assert triples(taken) == [
            (place, document, grade)
            for place, query in enumerate(queries)
            for own, document, grade in sorted(given)
            if own == query
        ]


@pytest.mark.parametrize("seed", range(10))
def test_of_pairs(seed: int) -> None:
    rng = random.Random(seed)
    anchors, positives = ([rng.choice("abcdef") for _ in range(30)] for _ in range(2))
    data = SearchSet.of_pairs(
        Dataset((texts("q", anchors), texts("p", positives), texts("n", positives)), source="my.csv")
    )
    queries, corpus = data.queries.items, data.corpus.items
    assert isinstance(queries, list)
    assert isinstance(corpus, list)
    assert queries == list(dict.fromkeys(anchors))
    assert corpus == list(dict.fromkeys(positives))
    assert data.query_ids == [str(anchors.index(query)) for query in queries]
    assert data.corpus_ids is None
    assert data.source == "my.csv"
    found = triples(data.judgements)
    assert {(queries[query], corpus[document]) for query, document, _ in found} == set(
        zip(anchors, positives, strict=True)
    )
    assert len(found) == len(set(found))
    assert {grade for _, _, grade in found} == {1}
    # And back: each pair once.
    pairs = data.pairs()
    assert pairs.form == "pairs"
    assert [column.name for column in pairs.columns] == ["anchor", "positive"]
    rows = list(zip(*(column.items for column in pairs.columns), strict=True))
    assert len(rows) == len(set(rows))
    assert set(rows) == set(zip(anchors, positives, strict=True))


def search_set(seed: int = 0) -> SearchSet:
    judgements = judge(random_triples(seed, 5, 7), 5)
    return SearchSet(texts("q", list("abcde")), texts("d", list("1234567")), judgements, source="my")


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_what_is_relevant(seed: int) -> None:
    data = search_set(seed)
    rows = list(zip(*(column.items for column in data.pairs().columns), strict=True))
    assert rows == [
        ("abcde"[query], "1234567"[document]) for query, document, grade in triples(data.judgements) if grade > 0
    ]


@pytest.mark.parametrize("seed", range(5))
def test_reversed(seed: int) -> None:
    data = search_set(seed)
    turned = data.reversed()
    assert (turned.queries, turned.corpus) == (data.corpus, data.queries)
    assert triples(turned.judgements) == sorted(
        (document, query, grade) for query, document, grade in triples(data.judgements)
    )
    assert triples(turned.reversed().judgements) == triples(data.judgements)


def test_summary() -> None:
    asked = Judgements.of_triples(np.array([0, 2, 2]), np.array([1, 0, 1]), np.array([2, 1, 0]), 3)
    images = Column("image", "image", ["a.png", "b.png"])
    data = SearchSet(texts("q", ["x", "y", "z"]), images, asked)
    assert data.summary() == "2 queries in 2 images, 2 relevant"
    one = SearchSet(texts("q", ["x"]), images, asked.take(np.array([0])))
    assert one.summary() == "1 query in 2 images, 1 relevant"


def test_what_does_not_go_together_is_refused() -> None:
    queries, corpus = texts("q", ["a", "b"]), texts("d", ["1", "2", "3"])
    judgements = Judgements.of_triples(np.array([0]), np.array([2]), np.array([1]), 2)
    SearchSet(queries, corpus, judgements, ["q0", "q1"], ["d0", "d1", "d2"])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"queries": corpus}, "my has 3 offsets of the judgements; for what else it holds it takes 4."),
        ({"query_ids": ["q"]}, "my has 1 ids of queries; for what else it holds it takes 2."),
        ({"corpus_ids": ["d"]}, "my has 1 ids of documents; for what else it holds it takes 3."),
        ({"corpus": queries}, "my judges the document 2; they are numbered 0 to 1."),
        (
            {"judgements": judgements._replace(grades=np.ones(2))},
            "my has 2 grades; for what else it holds it takes 1.",
        ),
    ]
    right: dict[str, Any] = {"queries": queries, "corpus": corpus, "judgements": judgements, "source": "my"}
    for changed, expected in wrong:
        with pytest.raises(DataError) as caught:
            SearchSet(**(right | changed))
        assert str(caught.value) == expected


def test_nothing_to_learn_from() -> None:
    judgements = Judgements.of_triples(np.array([0]), np.array([0]), np.array([0]), 1)
    with pytest.raises(DataError, match="my: no document is relevant to any query, so there is nothing to learn from"):
        SearchSet(texts("q", ["a"]), texts("d", ["1"]), judgements, source="my").pairs()
