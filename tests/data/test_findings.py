from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.findings import find_eval_problems, find_problems
from finetuner_core.data.leakage import find_leakage
from finetuner_core.data.search_set import SearchSet

Row = tuple[str, ...]
ITEMS = st.sampled_from("abcd")


def data_of(rows: list[Row], scores: list[float] | None = None) -> Dataset:
    names = ("anchor", "positive", "negative_1", "negative_2")
    columns = tuple(
        Column(name, "text", list(items)) for name, items in zip(names, zip(*rows, strict=True), strict=False)
    )
    return Dataset(columns, scores=None if scores is None else np.asarray(scores, np.float32)[:, None])


def labelled(rows: list[Row]) -> Dataset:
    items, labels = zip(*rows, strict=True)
    return Dataset((Column("text", "text", list(items)),), list(labels))


def warnings(data: Dataset) -> list[str]:
    return [problem.text for problem in find_problems(data, 1) if problem.kind == "warning"]


def count(data: Dataset, text: str) -> int:
    """The number behind a text, 0 where it is not said."""
    (found,) = [own.removeprefix(f"{text}: ").split()[0] for own in warnings(data) if own.startswith(f"{text}: ")] or [
        "0"
    ]
    return int(found)


@given(st.lists(st.tuples(ITEMS, ITEMS, ITEMS, ITEMS), min_size=1, max_size=12))
def test_rows_are_counted_as_a_loop_counts_them(rows: list[Row]) -> None:
    data = data_of(rows)
    known = {(anchor, positive) for anchor, positive, *_ in rows}
    assert count(data, "the same as an earlier row") == len(rows) - len(set(rows))
    assert count(data, "a positive that is its anchor") == sum(anchor == positive for anchor, positive, *_ in rows)
    for place, name in ((2, "negative_1"), (3, "negative_2")):
        expected = sum((row[0], row[place]) in known for row in rows)
        assert count(data, f"a known positive of the anchor as {name}") == expected
        assert count(data, f"the anchor itself as {name}") == sum(row[0] == row[place] for row in rows)


@given(st.lists(st.tuples(ITEMS, st.sampled_from("xyz")), min_size=1, max_size=12))
def test_labels_are_counted_as_a_loop_counts_them(rows: list[Row]) -> None:
    data = labelled(rows)
    labels_of = {item: {label for other, label in rows if other == item} for item, _ in rows}
    assert count(data, "an item again under the same label") == len(rows) - len(set(rows))
    assert count(data, "under several labels") == sum(len(labels) > 1 for labels in labels_of.values())
    alone = sum(number == 1 for number in Counter(label for _, label in rows).values())
    assert count(data, "labels of one item only, which are left out of training") == alone


def test_examples_are_named() -> None:
    rows: list[Row] = [("q", "p", "n"), ("r", "r", "n"), ("q", "s", "p")]
    assert warnings(data_of(rows)) == [
        'a positive that is its anchor: 1 row, such as "r"',
        'a known positive of the anchor as negative_1: 1 row, such as "p"',
    ]
    assert warnings(labelled([("a", "x"), ("b", "x"), ("a", "y"), ("c", "y")])) == [
        'under several labels: 1 item, such as "a" under "x" and "y"'
    ]


def test_labels_that_are_nearly_all_different_are_no_labels() -> None:
    ids: list[Row] = [(f"t{row}", str(row)) for row in range(10)]
    assert "there are 10 labels on 10 items: is the column of labels the right one?" in warnings(labelled(ids))
    assert not [
        text for text in warnings(labelled([(f"t{row}", str(row % 4)) for row in range(10)])) if "right one" in text
    ]


def test_scores() -> None:
    rows: list[Row] = [("q", "p"), ("q", "p"), ("r", "s")]
    assert warnings(data_of(rows, [1, 1, 2])) == ['the same as an earlier row: 1 row, such as "q"']
    assert (
        warnings(data_of(rows, [1, 3, 2]))[1] == "rows that are the same as earlier ones have other scores than those"
    )
    assert "every score is 2, so there is nothing to learn from them" in warnings(data_of(rows[1:], [2, 2]))


@pytest.mark.parametrize(
    ("data", "batch_size", "text"),
    [
        (labelled([("a", "x"), ("b", "x"), ("c", "x")]), 64, "has 1 labels, and 1 of them on more than one item."),
        (labelled([("a", "x"), ("b", "y"), ("c", "z")]), 64, "has 3 labels, and 0 of them on more than one item."),
        (data_of([("a", "x"), ("b", "y")]), 64, "has 2 pairs for training, fewer than a batch of 64."),
        (data_of([("a", "x"), ("b", "y")], [1, 2]), 3, "fewer than a batch of 3."),
    ],
)
def test_what_training_would_fail_of(data: Dataset, batch_size: int, text: str) -> None:
    (error,) = [problem.text for problem in find_problems(data, batch_size) if problem.kind == "error"]
    assert text in error


def test_evaluation_without_anything_to_find() -> None:
    (problem,) = find_eval_problems(labelled([("a", "x"), ("b", "y")]))
    assert (problem.kind, "each of its 2 items has a label of its own" in problem.text) == ("error", True)
    pairs = data_of([("a", "x"), ("b", "y")])
    for scores, wrong in (([[1], [1]], 1), ([[1], [2]], 0)):
        assert len(find_eval_problems(replace(pairs, scores=np.array(scores, np.float32)))) == wrong
    candidates = data_of([("a", "x", "y"), ("b", "y", "z")])
    for scores, wrong in (([[1, 1], [2, 2]], 1), ([[1, 1], [1, 2]], 0)):
        assert len(find_eval_problems(replace(candidates, scores=np.array(scores, np.float32)))) == wrong
    assert find_eval_problems(labelled([("a", "x"), ("b", "x")])) == []
    assert find_eval_problems(SearchSet.of_pairs(data_of([("a", "x")]))) == []


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), min_size=1, max_size=8)


@given(st.lists(PAIRS, min_size=1, max_size=3), PAIRS, st.booleans())
def test_leakage_is_what_a_loop_finds(train: list[list[Row]], evaluation: list[Row], as_search_set: bool) -> None:
    sets = [data_of(rows) for rows in train]
    own = data_of(evaluation)
    found = find_leakage(sets, SearchSet.of_pairs(own) if as_search_set else own)
    pairs = {row for rows in train for row in rows}
    items = {item for pair in pairs for item in pair}
    queries, documents = {query for query, _ in evaluation}, {document for _, document in evaluation}
    assert (found.queries, found.of_queries) == (len(queries & items), len(queries))
    assert (found.documents, found.of_documents) == (len(documents & items), len(documents))
    assert found.pairs == len({query for query, document in evaluation if (query, document) in pairs})
    assert bool(str(found)) == bool(queries & items)


def test_leakage_of_labelled_data() -> None:
    train = labelled([("a", "x"), ("b", "x"), ("c", "y")])
    found = find_leakage([train], labelled([("b", "z"), ("d", "z"), ("b", "z")]))
    assert str(found) == 'items of the evaluation data that are in the training data as well: 1 of 2, such as "b"'
    assert str(find_leakage([train], labelled([("d", "x"), ("e", "x")]))) == ""


def test_a_hard_negative_in_training_is_no_leak() -> None:
    assert find_leakage([data_of([("a", "b", "c")])], data_of([("c", "d")])).queries == 0


def test_vectors_leak_by_their_bits() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    train, own = (Dataset((Column("v", "vector", part),), ["x"] * len(part)) for part in (vectors[:4], vectors[3:]))
    assert str(find_leakage([train], own)).endswith('1 of 3, such as "6, 7"')
