"""The conformance kit, over the plugin's one row."""

from __future__ import annotations

import pytest

from finetuner_core.testing import Check, checks_for


@pytest.mark.parametrize(
    "check", checks_for("mlp", backbones={"mlp": {"input_size": 6, "hidden_sizes": (8, 4), "dropout": 0.5}})
)
def test_conformance(check: Check) -> None:
    check()
