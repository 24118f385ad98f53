"""The conformance kit, over every form of tower that open_clip has."""

from __future__ import annotations

import pytest

from finetuner_core.testing import Check, checks_for

# tiny_vit ... tiny_roberta, which conftest.py tells open_clip of.
NAMES = ["tiny_vit", "tiny_resnet", "tiny_timm", "tiny_siglip", "tiny_coca", "tiny_roberta"]
TEMPERATURE = "open_clip opens no folder without the temperature of CLIP's loss, which has no part in a vector"


@pytest.mark.parametrize(
    "check",
    checks_for("openclip", backbones=NAMES, expected_failures={f"{name}-leftovers": TEMPERATURE for name in NAMES}),
)
def test_conformance(check: Check) -> None:
    check()
