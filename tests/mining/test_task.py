"""What asks, what is found, and what is known to belong together, against loops over the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuner_core.data.dataset import Cells, Column, Dataset
from finetuner_core.data.search_set import Judgements, SearchSet
from finetuner_core.errors import DataError
from finetuner_core.mining.task import BarredClasses, BarredPairs, Joined, Task, task_of
from finetuner_core.values import Modality


def column(items: object, name: str = "text", modality: Modality = "text") -> Column:
    return Column(name, modality, items)  # type: ignore[arg-type]


def pairs(rows: list[tuple[str, ...]]) -> Dataset:
    return Dataset(tuple(column(list(items), f"c{n}") for n, items in enumerate(zip(*rows, strict=True))))


def barred(task: Task) -> set[tuple[object, object]]:
    """The items of all pairs that are barred, whichever rule bars them."""
    queries, documents = (range(len(items)) for items in (task.queries, task.documents))
    return {
        (task.queries.take([query])[0], task.documents.take([document])[0])
        for known in (task.known, task.same)
        for query, document in zip(*known.within(queries, documents), strict=True)
    }


def rows_of(task: Task) -> list[tuple[object, object]]:
    query, positive = task.rows
    return list(zip(task.queries.take(query), task.documents.take(positive), strict=True))


ROWS = st.lists(st.tuples(*[st.sampled_from("abcdef")] * 3), min_size=1, max_size=20)


@settings(deadline=None)
@given(ROWS, st.lists(st.sampled_from("abcdefgh"), max_size=6))
def test_pairs_against_a_loop(rows: list[tuple[str, ...]], corpus: list[str]) -> None:
    wanted = list(dict.fromkeys((anchor, positive) for anchor, positive, _ in rows if anchor != positive))
    more = [column(corpus)] if corpus else []
    if not wanted:
        with pytest.raises(DataError, match="every positive is equal to its anchor"):
            task_of(pairs(rows), more)
        return
    task = task_of(pairs(rows), more)
    found = [row[1] for row in rows] + [row[2] for row in rows] + corpus
    assert task.documents.take(range(len(task.documents))) == list(dict.fromkeys(found))
    assert task.queries.take(range(len(task.queries))) == list(dict.fromkeys(row[0] for row in rows))
    assert rows_of(task) == wanted
    together = {(anchor, positive) for anchor, positive, _ in rows}
    expected = {
        (query, document)
        for query in {row[0] for row in rows}
        for document in found
        if query == document or (query, document) in together or (document, query) in together
    }
    assert barred(task) == expected
    equal = sum(anchor == positive for anchor, positive, _ in rows)
    assert list(task.left_out.values()) == [equal, len(rows) - equal - len(wanted)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1, max_size=20), st.data())
def test_labelled_items_against_a_loop(rows: list[tuple[str, str]], data: st.DataObject) -> None:
    labels: dict[str, set[str]] = {}
    for item, label in rows:
        labels.setdefault(item, set()).add(label)
    clear = {item: next(iter(own)) for item, own in labels.items() if len(own) == 1}
    classes = list(clear.values())
    dataset = Dataset((column([item for item, _ in rows]),), [label for _, label in rows])
    if len(set(classes)) < 2 or len(set(classes)) == len(classes):
        with pytest.raises(DataError, match="two labels or more"):
            task_of(dataset)
        return
    task = task_of(dataset, seed=data.draw(st.integers(0, 9)))
    assert task.documents.take(range(len(task.documents))) == list(clear)
    assert barred(task) == {(one, two) for one in clear for two in clear if clear[one] == clear[two]}
    asking = [item for item in clear if classes.count(clear[item]) > 1]
    assert [query for query, _ in rows_of(task)] == asking
    assert all(query != positive and clear[str(query)] == clear[str(positive)] for query, positive in rows_of(task))
    assert list(task.left_out.values()) == [len(rows) - len(labels), len(labels) - len(clear), len(clear) - len(asking)]


def test_every_other_item_of_a_label_can_be_the_positive() -> None:
    dataset = Dataset((column(list("abcde")),), list("xxxxy"))
    drawn = {row for seed in range(60) for row in rows_of(task_of(dataset, seed=seed))}
    assert drawn == {(one, two) for one in "abcd" for two in "abcd" if one != two}


def test_a_search_set_is_its_relevant_pairs_against_all_of_its_corpus() -> None:
    # Of the first query one document is relevant and one judged as not relevant; the second has nothing relevant.
    judgements = Judgements.of_triples(np.array([0, 0, 1]), np.array([2, 1, 0]), np.array([2, 0, 0]), 2)
    found = SearchSet(column(["one", "two"]), column(["uno", "due", "I", "uno"]), judgements)
    task = task_of(found.pairs(), [found.corpus])
    assert rows_of(task) == [("one", "I")]
    assert set(task.documents.take(range(3))) == {"uno", "due", "I"}
    assert barred(task) == {("one", "I")}


def test_vectors_and_pictures_are_equal_where_their_data_are() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    task = task_of(Dataset((column(vectors, "a", "vector"), column(vectors[[1, 2, 0]], "b", "vector"))))
    assert (len(task.queries), len(task.documents)) == (2, 2)
    assert task.names == ("anchor", "positive")
    task = task_of(Dataset((column(["cat"], "q"), column(["cat.png"], "d", "image"))), [column(["cat"], "d", "image")])
    assert (task.names, len(task.same), len(task.documents)) == (("text", "image"), 0, 2)


@pytest.mark.parametrize(
    ("dataset", "corpus", "expected"),
    [
        (Dataset((column(["a"]), column(["b"])), scores=np.ones((1, 1), np.float32)), [], "holds scored pairs"),
        (
            Dataset((column(["a"]), column(["b"]))),
            [column(["x"], "image", "image")],
            "The corpus holds images, and texts",
        ),
        (Dataset((column(["a", "b"]),), ["x", "x"]), [column(["c"])], "A corpus has no labels"),
    ],
)
def test_what_cannot_be_mined(dataset: Dataset, corpus: list[Column], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        task_of(dataset, corpus)


def test_joined_columns_are_lazy_cells() -> None:
    joined = Joined([column(["a", "b"]), column(np.array([[1.0], [2.0]]), "v", "vector")], np.array([3, 0, 2]))
    assert isinstance(joined, Cells)
    assert joined.take([1, 0, 2, 0]) == ["a", [2.0], [1.0], [2.0]]
    assert joined.select([2, 1]).take([0, 1]) == [[1.0], "a"]
    assert (len(joined), joined.identities().tolist()) == (3, [0, 1, 2])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_barred_classes_are_the_pairs_of_their_loop(classes: list[int], data: st.DataObject) -> None:
    _, numbers = np.unique(classes, return_inverse=True)
    listed = [(i, j) for i, one in enumerate(classes) for j, two in enumerate(classes) if one == two]
    queries, documents = (range(*sorted(data.draw(st.tuples(*[st.integers(0, len(classes))] * 2)))) for _ in range(2))
    first, second = np.array(listed).T
    one, two = BarredClasses(numbers), BarredPairs(first, second, len(classes))
    for rows, columns in (one.within(queries, documents), two.within(queries, documents)):
        found = {
            (int(row) + queries.start, int(place) + documents.start) for row, place in zip(rows, columns, strict=True)
        }
        assert found == {(i, j) for i, j in listed if i in queries and j in documents}
    assert len(two) == len(one) + len(classes)  # an item is not counted as known to belong to itself
    assert one.fingerprint() != BarredClasses(numbers + 1).fingerprint()
    assert two.fingerprint() != BarredPairs(np.array([7]), np.array([0]), 1).fingerprint()
