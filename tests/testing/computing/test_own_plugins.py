"""The toy plugin of the core's tests passes the kit, and so do the poolings and losses that the core itself has."""

from __future__ import annotations

import pytest

from finetuner_core import builtin
from finetuner_core.testing import Check, checks_for
from finetuner_core.testing.check import all_checks

ACME = checks_for(
    "acme", backbones={"letters": {"dropout": 0.5}, "pixels": {}, "both": {}, "numbers": {"input_size": 5}}
)
PARTS = [
    check
    for check in all_checks(
        "finetuner",
        backbones={},
        poolings={info.name: {} for info in builtin.list_poolings() if info.name != "native"},
        losses={info.name: {} for info in builtin.list_losses()},
    )
    if check.subject.name
]


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("check", ACME)
def test_the_toy_plugin_conforms(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", PARTS, ids=lambda check: check.id)
def test_the_parts_of_the_core_conform(check: Check) -> None:
    check()
