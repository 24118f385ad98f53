"""The conformance kit of the core over every loss of the plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetuner_core.testing import checks_for
from finetuner_metric_learning.rows import LOSSES

REQUIRED = {"num_classes": 3, "margin": 0.4, "Tn": 2.0}


def required(name: str) -> dict[str, Any]:
    info = next(row.info for row in LOSSES if row.name == name)
    return {option.name: REQUIRED[option.name] for option in info.options if option.required}


# The kit's batch has three classes of 3, 3 and 2 items.
UNEVEN = "SmoothAPLoss refuses batches that the library computes it wrong for"
EXPECTED_FAILURES = {
    **{f"loss-{row.name}-references": "refuses pairs, as the library does" for row in LOSSES if not row.pairs},
    "loss-NPairsLoss-order": "takes the first pair of each class by its definition",
    **{f"loss-SmoothAPLoss-{check}": UNEVEN for check in ("scalar", "gradient", "order")},
}


@pytest.mark.parametrize(
    "check",
    checks_for(
        "metric-learning",
        losses={row.name: required(row.name) for row in LOSSES},
        expected_failures=EXPECTED_FAILURES,
    ),
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
