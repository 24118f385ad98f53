from __future__ import annotations

import numpy as np

from finetuner_core.evaluation.measures import Mean
from finetuner_core.evaluation.report import render_comparison, render_metrics
from finetuner_core.evaluation.result import Evaluation


def evaluation(values: dict[str, list[float]], **options: object) -> Evaluation:
    ids = [str(row) for row in range(len(next(iter(values.values()))))]
    return Evaluation({name: Mean(np.array(rows)) for name, rows in values.items()}, ids, **options)  # type: ignore[arg-type]


def test_metrics() -> None:
    assert render_metrics(evaluation({"recall@1": [0.12345] * 4, "mrr": [1.0] * 4})).splitlines() == [
        "  metric    value    95% interval",
        "--------  -------  --------------",
        "recall@1    0.123  0.123 to 0.123",
        "     mrr    1.000  1.000 to 1.000",
        "4 queries",
    ]


def test_an_interval_and_what_was_left_out() -> None:
    metrics = evaluation({"recall@1": [0.0, 1.0] * 1000}, left_out=1234, unit="pairs")
    *_, row, over = render_metrics(metrics).splitlines()
    assert row.split() == ["recall@1", "0.500", *"{:.3f} to {:.3f}".format(*metrics.interval("recall@1")).split()]
    assert over == "2,000 pairs (1,234 more have nothing to find)"


def test_comparison() -> None:
    rng = np.random.default_rng(0)
    before = {"recall@1": [0.1] * 50, "mrr": [0.5] * 50, "map": rng.random(50).tolist()}
    after = {"map": before["map"], "mrr": [0.4321] * 50, "recall@1": [0.9996] * 50}
    lines = render_comparison(evaluation(before), evaluation(after)).splitlines()
    mean = f"{np.mean(before['map']):.3f}"
    assert [line.split() for line in lines] == [
        ["metric", "before", "after", "gain", "95%", "interval", "p"],
        ["--------", "--------", "-------", "------", "----------------", "-------"],
        ["recall@1", "0.100", "1.000", "+0.900", "+0.900", "to", "+0.900", "<0.0002"],
        ["mrr", "0.500", "0.432", "-0.068", "-0.068", "to", "-0.068", "<0.0002"],
        ["map", mean, mean, "+0.000", "+0.000", "to", "+0.000", "1.0000"],
    ]
    parts = {"width 1024 image-to-text": evaluation({"hit_rate@100": [0.5]})}
    longest = evaluation({"map": [0.5]}, parts=parts)
    assert max(map(len, render_comparison(longest, longest).splitlines())) <= 100
