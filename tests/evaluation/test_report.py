from __future__ import annotations

from finetuner_core.evaluation.report import render_comparison, render_metrics


def test_metrics() -> None:
    assert render_metrics({"recall@1": 0.12345, "mrr": 1.0}).splitlines() == [
        "  metric    value",
        "--------  -------",
        "recall@1    0.123",
        "     mrr    1.000",
    ]


def test_comparison() -> None:
    before, after = {"recall@1": 0.1, "mrr": 0.5, "map": 0.25}, {"map": 0.25, "mrr": 0.4321, "recall@1": 0.9996}
    assert [line.split() for line in render_comparison(before, after).splitlines()] == [
        ["metric", "before", "after", "gain"],
        ["--------", "--------", "-------", "------"],
        ["recall@1", "0.100", "1.000", "+0.900"],
        ["mrr", "0.500", "0.432", "-0.068"],
        ["map", "0.250", "0.250", "+0.000"],
    ]
