"""The conformance kit, over small test models that timm has of its larger families."""

from __future__ import annotations

import pytest

from finetuner_core.testing import Check, checks_for

BACKBONES = (
    "test_vit",
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_byobnet",
    "test_mambaout",
)


@pytest.mark.parametrize("check", checks_for("timm", backbones=BACKBONES))
def test_conformance(check: Check) -> None:
    check()
