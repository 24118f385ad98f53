from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.known import Known, numbered


def table(columns: Sequence[Sequence[str]]) -> Dataset:
    return Dataset(tuple(Column(f"{place}", "text", list(items)) for place, items in enumerate(columns)))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], list[int]]:
    rows, width = draw(st.integers(1, 14)), draw(st.integers(2, 4))
    spread = draw(st.sampled_from([2, 6, 40]))
    item = st.integers(0, spread).map(str)
    columns = draw(st.lists(st.lists(item, min_size=rows, max_size=rows), min_size=width, max_size=width))
    return columns, draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows, unique=True))


def naive_excluded(columns: list[list[str]], rows: list[int]) -> np.ndarray:
    """Asks of each pair whether it belongs together, in two loops."""
    belongs = {pair for a, b in zip(columns[0], columns[1], strict=True) for pair in ((a, b), (b, a))}
    references = [(place, row) for place in range(1, len(columns)) for row in rows]
    excluded = np.zeros((len(rows), len(references)), bool)
    for i, row in enumerate(rows):
        for j, (place, other) in enumerate(references):
            anchor, document = columns[0][row], columns[place][other]
            own = place == 1 and other == row
            excluded[i, j] = not own and (anchor == document or (anchor, document) in belongs)
    return excluded


@given(tables())
def test_excluded_is_what_two_loops_say(case: tuple[list[list[str]], list[int]]) -> None:
    columns, rows = case
    expected = naive_excluded(columns, rows)
    found = Known(table(columns)).excluded(rows)
    if found is None:
        assert not expected.any()
    else:
        assert found.dtype == bool
        assert found.any()
        np.testing.assert_array_equal(found, expected)


@given(tables())
def test_labels_grouped_are_the_chains_of_what_belongs_together(case: tuple[list[list[str]], list[int]]) -> None:
    columns, rows = case
    known = Known(table(columns))
    labels, references = known.labels(rows)
    assert labels.tolist() == references[: len(rows)].tolist()
    assert len(set(references.tolist())) == len(references) == len(rows) * (len(columns) - 1)
    # Grows the set of what each anchor and each reference belongs with until nothing changes.
    together = naive_excluded(columns, rows)
    together[np.arange(len(rows)), np.arange(len(rows))] = True
    nodes = [("a", i) for i in range(len(rows))] + [("r", j) for j in range(len(references))]
    edges = {frozenset([("a", int(i)), ("r", int(j))]) for i, j in zip(*np.nonzero(together), strict=True)}
    group = {node: {node} for node in nodes}
    for _ in nodes:
        for one, other in map(tuple, edges):
            group[one] |= group[other]
            group[other] |= group[one]
    labels, references = known.grouped(rows)
    given_to = {
        **{("a", i): int(x) for i, x in enumerate(labels)},
        **{("r", j): int(x) for j, x in enumerate(references)},
    }
    for one, other in itertools.combinations(nodes, 2):
        assert (given_to[one] == given_to[other]) == (other in group[one])


def test_an_anchor_with_more_documents_than_the_batch() -> None:
    rng = random.Random(0)
    columns = [[f"q{rng.randrange(2)}" for _ in range(300)], [f"d{rng.randrange(90)}" for _ in range(300)]]
    for rows in ([3, 1, 4, 15, 9, 2, 6], list(range(300))):
        found = Known(table(columns)).excluded(rows)
        assert found is not None
        np.testing.assert_array_equal(found, naive_excluded(columns, rows))


def test_hand_made_cases() -> None:
    known = Known(table([["a", "b", "a", "c"], ["x", "y", "z", "x"]]))
    assert known.excluded([0, 1]) is None
    # a is known of x, of its own row, and of z.
    assert known.excluded([0, 1, 2]).tolist() == [[False, False, True], [False] * 3, [True, False, False]]  # type: ignore[union-attr]
    # What is known stands in no row of the batch: c is known of x, and so is a.
    assert known.excluded([2, 3]).tolist() == [[False, True], [False, False]]  # type: ignore[union-attr]
    assert [labels.tolist() for labels in known.grouped([2, 3])] == [[0, 0], [0, 0]]
    # A hard negative that is another row's positive, and one that is its own.
    known = Known(table([["a", "b"], ["x", "y"], ["y", "y"]]))
    assert known.excluded([0, 1]).tolist() == [[False] * 4, [False, False, True, True]]  # type: ignore[union-attr]
    assert [labels.tolist() for labels in known.grouped([0, 1])] == [[0, 1], [0, 1, 1, 1]]


def test_labelled_items_under_two_labels_are_neither() -> None:
    data = Dataset((Column("text", "text", ["a", "b", "a", "c", "b"]),), ["x", "x", "y", "y", "x"])
    known = Known(data)
    assert known.excluded([1, 2, 3]) is None
    found = known.excluded([0, 2, 1, 4])
    assert found is not None
    assert np.argwhere(found).tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    for labels in (known.labels([0, 2, 1]), known.grouped([0, 2, 1])):
        assert [own.tolist() for own in labels] == [[0, 1, 0], [0, 1, 0]]


def test_scored_data_exclude_nothing() -> None:
    column = Column("a", "text", ["x", "x"])
    data = Dataset((column, column, column), scores=np.zeros((2, 2), np.float32))
    assert Known(data).excluded([0, 1]) is None


@pytest.mark.parametrize("kind", ["text", "vector"])
def test_items_are_numbered_across_columns(kind: str) -> None:
    left, right = [3, 1, 3, 2], [1, 9, 2, 2]
    if kind == "text":
        columns = [Column("l", "text", [*map(str, left)]), Column("r", "text", [*map(str, right)])]
    else:
        columns = [
            Column(name, "vector", np.array(side, np.float32)[:, None]) for name, side in (("l", left), ("r", right))
        ]
    assert [own.tolist() for own in numbered(columns)] == [[0, 1, 0, 2], [1, 3, 2, 2]]


def test_items_of_different_modalities_differ() -> None:
    columns = [
        Column("l", "text", ["a.png", "b"]),
        Column("r", "image", ["a.png", "b"]),
        Column("s", "text", ["b", "c"]),
    ]
    text, image, more = (set(own.tolist()) for own in numbered(columns))
    assert not image & (text | more)
    assert len(text & more) == 1


@pytest.mark.parametrize("form", ["labelled", "pairs", "tuples"])
def test_what_is_remembered_is_excluded_as_if_it_stood_in_the_batch(form: str) -> None:
    """A batch beside a memory of another one, against a double loop over the texts."""
    rng = random.Random(0)
    rows = [[rng.choice("abcdefgh") for _ in range(3)] for _ in range(40)]
    if form == "labelled":
        columns = [[row[0] for row in rows]]
        data = Dataset((Column("text", "text", columns[0]),), [row[1] for row in rows])
    else:
        columns = [list(column) for column in zip(*rows, strict=True)][: 2 if form == "pairs" else 3]
        data = Dataset(tuple(Column(f"c{i}", "text", column) for i, column in enumerate(columns)))
    known, now, before = Known(data), [3, 30, 7, 12], [5, 21, 8]
    remembered = np.concatenate([known.references(before), [-1, -1]])
    found = known.excluded(now, remembered)
    belong = {(row[0], row[1]) for row in rows} if form != "labelled" else set()

    def texts(batch: list[int]) -> list[str]:
        return [column[row] for column in (columns if form == "labelled" else columns[1:]) for row in batch]

    expected = [
        [
            place != i
            and (columns[0][row] == text or {(columns[0][row], text), (text, columns[0][row])} & belong != set())
            for place, text in enumerate([*texts(now), *texts(before)])
        ]
        + [False, False]
        for i, row in enumerate(now)
    ]
    assert found is not None
    assert found.tolist() == expected
