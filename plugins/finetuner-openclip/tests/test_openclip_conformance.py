"""The conformance kit, over every form of tower that open_clip has."""

from __future__ import annotations

import pytest

from finetuner_core.testing import Check, checks_for

# conftest.py tells open_clip of these.
NAMES = ["tiny_vit", "tiny_resnet", "tiny_timm", "tiny_siglip", "tiny_coca", "tiny_roberta"]


@pytest.mark.parametrize("check", checks_for("openclip", backbones=NAMES))
def test_conformance(check: Check) -> None:
    check()
