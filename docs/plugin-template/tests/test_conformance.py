"""All that Finetuner asks of a plugin."""

import pytest

from finetuner_core.testing import Check, checks_for


@pytest.mark.parametrize("check", checks_for("acme", backbones=["ngrams"]))
def test_conformance(check: Check) -> None:
    check()
