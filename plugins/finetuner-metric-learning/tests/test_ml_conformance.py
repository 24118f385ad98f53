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


EXPECTED_FAILURES = {"loss-NPairsLoss-order": "takes the first pair of each class by its definition"}


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
