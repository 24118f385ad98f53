"""Each rule alone, on scores placed by hand, and all of them against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuner_core.errors import OptionError
from finetuner_core.mining.rules import Rules

NONE: dict[str, Any] = {"relative_margin": None, "negatives": 2, "top_k": 6}
SCORES = np.array([[0.9, 0.8, 0.6, 0.5, 0.1, -np.inf]], np.float32)


def choose(
    scores: np.ndarray, positive: list[float], seed: int = 0, **settings: Any
) -> tuple[Any, Any, dict[str, int]]:
    rules = Rules(**{**NONE, **settings})
    enough, taken, excluded = rules.choose(scores, np.array(positive, np.float32), np.random.default_rng(seed))
    return enough.tolist(), taken.tolist(), dict(excluded)


@pytest.mark.parametrize(
    ("settings", "positive", "taken", "excluded"),
    [
        ({}, 0.8, [0, 1], {"skip_top": 0}),
        ({"skip_top": 1}, 0.8, [1, 2], {"skip_top": 1}),
        # Below 0.9 * 0.8 = 0.72, and of a negative positive below -0.5 - 0.1 * 0.5.
        ({"relative_margin": 0.1}, 0.8, [2, 3], {"skip_top": 0, "relative_margin": 2}),
        ({"relative_margin": 0.0}, 0.8, [2, 3], {"skip_top": 0, "relative_margin": 2}),
        ({"absolute_margin": 0.25}, 0.8, [3, 4], {"skip_top": 0, "absolute_margin": 3}),
        ({"max_score": 0.7}, 0.8, [2, 3], {"skip_top": 0, "max_score": 2}),
        ({"min_score": 0.55}, 0.8, [0, 1], {"skip_top": 0, "min_score": 2}),
        # What breaks several rules is counted for the first.
        (
            {"skip_top": 1, "relative_margin": 0.05, "max_score": 0.9, "min_score": 0.2},
            0.7,
            [2, 3],
            {"skip_top": 1, "relative_margin": 1, "max_score": 0, "min_score": 1},
        ),
    ],
)
def test_each_rule(settings: dict[str, Any], positive: float, taken: list[int], excluded: dict[str, int]) -> None:
    assert choose(SCORES, [positive], **settings) == ([True], [taken], excluded)


def test_a_relative_margin_below_a_negative_positive() -> None:
    scores = np.array([[-0.4, -0.52, -0.56, -0.7]], np.float32)
    enough, taken, excluded = choose(scores, [-0.5], relative_margin=0.1, top_k=4)
    assert (enough, taken, excluded["relative_margin"]) == ([True], [[2, 3]], 2)


def test_rows_without_enough_are_told() -> None:
    scores = np.array([[0.9, 0.3, 0.2], [0.9, 0.8, 0.2], [0.9, -np.inf, -np.inf]], np.float32)
    enough, taken, _ = choose(scores, [0.8, 0.5, 1.0], relative_margin=0, top_k=3)
    assert enough == [True, False, False]
    assert taken[0] == [1, 2]


def test_random_ones_are_any_of_those_left_in_falling_order() -> None:
    seen = set()
    for seed in range(80):
        enough, ((first, second),), _ = choose(SCORES, [0.85], seed, relative_margin=0, sampling="random")
        assert enough == [True]
        assert first < second
        seen.add((first, second))
    assert seen == {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}
    assert choose(SCORES, [0.85], 5, sampling="random") == choose(SCORES, [0.85], 5, sampling="random")


MARGINS = st.none() | st.floats(0, 1)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 3), MARGINS, MARGINS, MARGINS, MARGINS, st.booleans())
def test_against_a_loop(
    seed: int,
    negatives: int,
    skip_top: int,
    relative: float | None,
    absolute: float | None,
    low: float | None,
    high: float | None,
    by_rank: bool,
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    random = np.random.default_rng(seed)
    scores = random.uniform(-1, 1, (4, 8)).astype(np.float32)
    if by_rank:
        scores = -np.sort(-scores, axis=1)
    positive = random.uniform(-1, 1, 4).astype(np.float32)
    rules = Rules(negatives, 8, skip_top, relative, absolute, low, high)
    enough, taken, _ = rules.choose(scores, positive, random)
    for row in range(4):
        own = float(positive[row])
        left = [
            (-float(score), place)
            for place, score in enumerate(scores[row].tolist())
            if place >= skip_top
            and (relative is None or score < own - relative * abs(own))
            and (absolute is None or score < own - absolute)
            and (low is None or score >= low)
            and (high is None or score <= high)
        ]
        assert enough[row] == (len(left) >= negatives)
        if enough[row]:
            assert taken[row].tolist() == [place for _, place in sorted(left)[:negatives]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"negatives": 0}, "negatives is 0; it must be at least 1"),
        ({"skip_top": -1}, "skip_top is -1; it must be at least 0"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_k": 5, "skip_top": 4}, "top_k is 5, and without skip_top, 4, that leaves fewer ranks than 2"),
        ({"relative_margin": -0.1}, "relative_margin is -0.1; it must be at least 0. Without one, write none"),
        ({"absolute_margin": float("nan")}, "absolute_margin is nan; it must be a finite number"),
        ({"min_score": 0.5, "max_score": 0.4}, "min_score is 0.5, above max_score, 0.4"),
        ({"sampling": "hard"}, 'sampling is "hard"; it is top or random'),
    ],
)
def test_settings_out_of_their_range(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        Rules(**{**NONE, **settings})
