from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from finetuner_core.errors import OptionError
from finetuner_core.evaluation.metrics import DEFAULT, LABELLED, find_metrics
from finetuner_core.evaluation.retrieval import Found

CUTOFFS = (1, 3, 10, 100)
EVERY = (
    *(f"{name}@{k}" for name in ("recall", "precision", "hit_rate", "mrr", "map", "ndcg") for k in CUTOFFS),
    *("mrr", "map", "ndcg", "r_precision", "map@r"),
)


def random_lists(seed: int, *, graded: bool) -> list[list[int]]:
    """Result lists, as the grade of each item; in some nothing is relevant."""
    rng = random.Random(seed)
    lists = []
    for _ in range(rng.randint(1, 6)):
        share = rng.choice([0, 0.1, 0.5, 0.9])
        grades = (1, 2, 3, 5) if graded else (1,)
        lists.append([rng.choice(grades) if rng.random() < share else 0 for _ in range(rng.choice([1, 3, 10, 40]))])
    return lists


def found(lists: list[list[int]]) -> Found:
    relevant = [
        (query, rank, grade) for query, grades in enumerate(lists) for rank, grade in enumerate(grades, 1) if grade
    ]
    query, ranks, grades = np.array(relevant, np.int64).reshape(-1, 3).T
    return Found(query, ranks, grades, len(lists))


def measure(lists: list[list[int]], *, any_relevant: bool = False) -> dict[str, np.ndarray]:
    functions = find_metrics(EVERY, any_relevant=any_relevant)
    return {name: function(found(lists)) for name, function in functions.items()}


def naive(grades: list[int]) -> dict[str, float]:
    """Every metric by the formula of its definition, walking down the result list."""
    relevant = [grade > 0 for grade in grades]
    total = sum(relevant)
    if not total:
        return dict.fromkeys(EVERY, 0.0)

    def gain(ordered: list[int]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ordered, 1))

    def average(k: int) -> float:
        return (
            sum(sum(relevant[:rank]) / rank for rank in range(1, min(k, len(grades)) + 1) if relevant[rank - 1]) / total
        )

    values: dict[str, float] = {}
    for k in (*CUTOFFS, len(grades)):
        values[f"recall@{k}"] = sum(relevant[:k]) / total
        values[f"precision@{k}"] = sum(relevant[:k]) / k
        values[f"hit_rate@{k}"] = float(any(relevant[:k]))
        values[f"mrr@{k}"] = 1 / (relevant.index(True) + 1) if any(relevant[:k]) else 0
        values[f"map@{k}"] = average(k)
        values[f"ndcg@{k}"] = gain(grades[:k]) / gain(sorted(grades, reverse=True)[:k])
    uncut = {name: values[f"{name}@{len(grades)}"] for name in ("mrr", "map", "ndcg")}
    return {**values, **uncut, "r_precision": sum(relevant[:total]) / total, "map@r": average(total)}


@pytest.mark.parametrize("graded", [True, False])
def test_agree_with_a_naive_walk_down_the_list(graded: bool) -> None:
    for seed in range(150):
        lists = random_lists(seed, graded=graded)
        values = measure(lists)
        expected = [naive(grades) for grades in lists]
        for name in EVERY:
            assert values[name].shape == (len(lists),)
            assert values[name] == pytest.approx([each[name] for each in expected]), name


def test_agree_with_scikit_learn() -> None:
    compared = 0
    for seed in range(100):
        for grades in random_lists(seed, graded=True):
            if len(grades) < 2 or not any(grades):  # ndcg_score takes no list of one
                continue
            values = measure([grades])
            scores = -np.arange(len(grades), dtype=float)
            assert values["map"] == pytest.approx(average_precision_score(np.array(grades) > 0, scores))
            for k in CUTOFFS:
                assert values[f"ndcg@{k}"] == pytest.approx(ndcg_score([grades], [scores], k=k))
            compared += 1
    assert compared > 100


def test_by_hand() -> None:
    values = {name: float(value[0]) for name, value in measure([[0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2]]).items()}
    assert [values[f"recall@{k}"] for k in CUTOFFS] == pytest.approx([0, 2 / 3, 2 / 3, 1])
    assert [values[f"precision@{k}"] for k in CUTOFFS] == pytest.approx([0, 2 / 3, 0.2, 0.03])
    assert [values[f"hit_rate@{k}"] for k in CUTOFFS] == [0, 1, 1, 1]
    assert (values["mrr"], values["mrr@1"], values["mrr@3"]) == (0.5, 0, 0.5)
    assert values["map"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 12) / 3)
    assert values["map@10"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    # Gains 1 and 3 at ranks 2 and 3, over 3, 2 and 1 at ranks 1, 2 and 3: log2(2) = 1, log2(4) = 2.
    assert values["ndcg@10"] == pytest.approx((1 / math.log2(3) + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2))
    assert values["r_precision"] == pytest.approx(2 / 3)
    assert values["map@r"] == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_recall_of_labelled_data_is_whether_anything_was_found() -> None:
    lists = [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    share, any_relevant = measure(lists), measure(lists, any_relevant=True)
    assert share["recall@1"].tolist() == [0.5, 0, 0]
    assert any_relevant["recall@1"].tolist() == [1, 0, 0]
    for name in EVERY:
        if not name.startswith("recall"):
            assert np.array_equal(share[name], any_relevant[name])


def test_the_best_is_exactly_one() -> None:
    for name, values in measure([[1] * length for length in (1, 2, 7, 40)]).items():
        if name in ("map", "map@r", "r_precision") or name.startswith(("hit_rate", "mrr", "ndcg")):
            assert set(values.tolist()) == {1.0}, name


def test_names() -> None:
    assert DEFAULT == ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map")
    assert LABELLED[6:] == ("r_precision", "map@r")
    assert LABELLED[:6] == DEFAULT
    assert list(find_metrics(["map@7", "recall@020"])) == ["map@7", "recall@020"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recal@10", 'There is no metric "recal@10". Did you mean "recall@10"'),
        ("ncdg@5", 'There is no metric "ncdg@5". Did you mean "ndcg@5"'),
        ("recall", 'There is no metric "recall". Did you mean "recall@10"'),
        ("ndcg@0", 'There is no metric "ndcg@0". Did you mean "ndcg@10"'),
        ("map@-1", 'There is no metric "map@-1".'),
        ("map@R", 'There is no metric "map@R".'),
        ("rprecision", 'There is no metric "rprecision". Did you mean "r_precision"'),
        ("", 'There is no metric "".'),
        ("accuracy", 'There is no metric "accuracy".'),
    ],
)
def test_an_unknown_name_is_refused(name: str, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_metrics(["map", name])
    first, second = str(caught.value).splitlines()
    assert first.startswith(expected)
    assert second == (
        "There are recall@k, precision@k, hit_rate@k, mrr@k, map@k, ndcg@k with a k of 1 or more, and "
        "mrr, map, ndcg, r_precision, map@r."
    )
