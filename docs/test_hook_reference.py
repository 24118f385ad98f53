"""The hook reference is what the docstrings say now."""

from __future__ import annotations

import hook_reference

from finetuner_core import hookspecs
from finetuner_core.testing.check import BACKBONE, LOSS, METADATA, POOLING


def test_the_committed_page_is_what_is_generated_now() -> None:
    assert hook_reference.PAGE.read_text("utf-8") == hook_reference.render(), "run: python docs/hook_reference.py"


def test_every_hook_and_what_it_refers_to_is_there() -> None:
    page = hook_reference.render()
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    assert len(hooks) == 10
    for name in (*hooks, *hook_reference.VALUES, *hook_reference.INTERFACES):
        assert f"\n### `{name}`\n" in page
    # One entry of each kind, word for word.
    assert "* `pattern`: a shell-style pattern, such as `convnext*`.\n" in page
    assert "* `WeightsError`: if the weights cannot be had; the message says how to get them.\n" in page
    assert "* `dim`: Width D of the token features.\n" in page
    assert "```py\ndef list_losses() -> Iterable[LossInfo]\n```\n" in page


def test_the_overview_names_every_check_of_the_conformance_kit() -> None:
    page = hook_reference.PAGE.with_name("plugins.md").read_text("utf-8")
    for checks in (METADATA, BACKBONE, POOLING, LOSS):
        assert f"| {' '.join(f'`{name}`' for name in checks)} |\n" in page
