"""Medians, and ratios round by round."""

from __future__ import annotations

import pytest

from benchmarks.speed.figures import Spread, fastest, peak, per_second, ratios, spread
from benchmarks.speed.suite import FASTEST, Against, Outcome, compare, describe

FAST = [{"seconds": 1.0, "cpu": 2.0, "peak": 10, "items": 4}, {"seconds": 4.0, "cpu": 6.0, "peak": 30, "items": 4}]
SLOW = [{"seconds": 3.0, "cpu": 3.0, "peak": 60, "items": 4}, {"seconds": 8.0, "cpu": 6.0, "peak": 50, "items": 4}]


def test_a_spread_is_the_middle_and_the_ends() -> None:
    assert spread([5.0]) == Spread(5.0, 5.0, 5.0)
    assert spread([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, 1.0, 4.0)


def test_ratios_are_those_of_each_round() -> None:
    # 3 and 2; the ratio of the medians would be 5.5 / 2.5.
    assert ratios(SLOW, FAST, "seconds") == Spread(2.5, 2.0, 3.0)
    assert ratios(SLOW, FAST, "cpu") == Spread(1.25, 1.0, 1.5)


def test_noise_that_hits_both_sides_of_a_round_falls_out() -> None:
    noise = (1.0, 7.0, 0.5)
    fast = [{"seconds": 2.0 * each} for each in noise]
    slow = [{"seconds": 6.0 * each} for each in noise]

    assert ratios(slow, fast, "seconds") == pytest.approx((3.0, 3.0, 3.0))


def test_rounds_that_one_side_lacks_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios(SLOW, FAST[:1], "seconds")


def test_rate_and_peak_are_of_all_turns() -> None:
    assert per_second(FAST, "items") == pytest.approx(8 / 5)
    assert peak(FAST) == 30
    assert fastest({"slow": SLOW, "fast": FAST}) == "fast"


def test_comparing_with_the_fastest_leaves_out_our_own_sides() -> None:
    outcomes = {
        "finetuner": Outcome(turns=list(SLOW)),
        "finetuner, other": Outcome(turns=list(FAST)),
        "peer": Outcome(turns=list(SLOW)),
        "peer, best": Outcome(turns=list(FAST)),
    }

    found = compare(outcomes, Against("finetuner", FASTEST, 2.0))

    assert found is not None
    assert (found["theirs"], found["seconds"]) == ("peer, best", ratios(FAST, SLOW, "seconds"))
    assert found["memory"] == 60 / 30


def test_sides_without_turns_are_said_and_not_compared() -> None:
    outcomes = {"finetuner": Outcome(turns=list(FAST)), "peer": Outcome(problem="skipped: not here")}

    report = describe("row", "A title", outcomes, [Against("finetuner", "peer"), Against("finetuner", FASTEST)])

    assert "| peer | skipped: not here |" in report.text
    assert "times as fast" not in report.text
    assert [record["side"] for record in report.records] == ["finetuner", "peer"]


def test_a_row_says_what_each_side_took_and_how_they_compare() -> None:
    outcomes = {"finetuner": Outcome(turns=list(FAST)), "peer": Outcome(turns=list(SLOW))}

    text = describe("row", "A title", outcomes, [Against("finetuner", "peer", 6, 1 / 3)], unit="pairs").text

    assert "| finetuner | 2.50 (1.00–4.00) | 1.60 | 4.00 | 0 |" in text
    assert "| finetuner | peer | 2.50 (2.00–3.00) | 1.25 (1.00–1.50) | 0.500 | ≥ 6, memory ≤ 0.33 |" in text
