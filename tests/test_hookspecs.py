"""Every hook is documented by an example that runs, and is named in a test."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from finetuner_core import hookspecs
from tests.conftest import HAS_TORCH

HOOKS = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if hasattr(function, f"{hookspecs.PROJECT}_spec")
}
TESTS = Path(__file__).parent
CORE = Path(hookspecs.__file__).parent
WITHOUT_TORCH = {"values", "errors", "plugin", "builtin", "catalogue", "cli", "artifacts"}

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="its example computes, and torch is not installed")


def run_examples(examples: doctest.DocTest) -> int:
    """How many examples ran; the test fails with what they printed if one did not hold."""
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not result.failed, "".join(said)
    return result.attempted


def modules_with_examples() -> list[ParameterSet]:
    """The core's modules with examples; those of rooms that compute are left to where torch is."""
    marked = []
    for file in sorted(CORE.rglob("*.py")):
        parts = file.relative_to(CORE).with_suffix("").parts
        if ">>> " in file.read_text(encoding="utf-8") and parts != ("hookspecs",):
            name = ".".join(("finetuner_core", *parts)).removesuffix(".__init__")
            marked.append(pytest.param(name, marks=[] if parts[0] in WITHOUT_TORCH else needs_torch))
    return marked


def test_there_are_the_hooks_that_the_design_names() -> None:
    assert set(HOOKS) == {
        "list_backbones",
        "find_backbone",
        "find_backbone_names",
        "load_backbone",
        "strip_head",
        "list_poolings",
        "build_pooling",
        "list_losses",
        "build_loss",
        "load_cross_encoder",
    }


@pytest.mark.parametrize(
    "hook",
    [pytest.param(name, marks=needs_torch if "import torch" in (f.__doc__ or "") else []) for name, f in HOOKS.items()],
)
def test_every_hook_has_an_example_that_implements_it(hook: str) -> None:
    text = inspect.getdoc(HOOKS[hook]) or ""
    parsed = doctest.DocTestParser().get_doctest(text, {}, hook, hookspecs.__file__, 0)

    assert f"... def {hook}(" in text
    assert any(example.want for example in parsed.examples), "the example shows no result"
    assert run_examples(parsed) == len(parsed.examples) > 0


@pytest.mark.parametrize("hook", HOOKS)
def test_every_parameter_of_a_hook_is_documented(hook: str) -> None:
    text = inspect.getdoc(HOOKS[hook]) or ""
    for parameter in inspect.signature(HOOKS[hook]).parameters:
        assert re.search(rf"^    {parameter}: \S", text, re.MULTILINE), f"{hook} does not say what {parameter} is"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_named_in_a_test(hook: str) -> None:
    others = (file for file in TESTS.rglob("test_*.py") if file != Path(__file__))
    assert any(re.search(rf"\b{hook}\b", file.read_text(encoding="utf-8")) for file in others)


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_the_modules_hold(name: str) -> None:
    tests = doctest.DocTestFinder().find(importlib.import_module(name), name)
    assert sum(run_examples(test) for test in tests if test.examples) > 0
