"""`import finetuner` gives the public names, and nothing heavy before it is asked for."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import finetuner
import finetuner_core
from tests.conftest import HAS_TORCH

HEAVY = ("torch", "timm", "transformers", "numpy")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process that finds what this one finds."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", dedent(code)], env=environment, capture_output=True, text=True, check=False
    )


def homes_for_type_checkers() -> dict[str, str]:
    """What `finetuner_core/__init__.py` imports under TYPE_CHECKING: each name's module."""
    tree = ast.parse(Path(finetuner_core.__file__).read_text(encoding="utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: str(node.module) for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_the_three_lists_of_names_agree() -> None:
    assert homes_for_type_checkers() == finetuner_core._HOME
    assert finetuner_core.__all__ == sorted(finetuner_core._HOME)


def test_finetuner_is_finetuner_core() -> None:
    assert vars(finetuner)["__all__"] == finetuner_core.__all__
    assert dir(finetuner) == dir(finetuner_core) == finetuner_core.__all__
    assert finetuner.list_models is finetuner_core.list_models
    assert finetuner.__doc__ == finetuner_core.__doc__


@pytest.mark.parametrize("module", [finetuner, finetuner_core], ids=["finetuner", "finetuner_core"])
def test_a_name_that_is_not_there_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="module 'finetuner' has no attribute 'fine_tune'"):
        module.fine_tune  # type: ignore[attr-defined]  # noqa: B018


def test_every_name_that_computes_nothing_is_there_without_torch() -> None:
    for name in ("describe_models", "list_models", "FinetunerError", "Dataset", "Column"):
        assert getattr(finetuner, name).__module__ == finetuner_core._HOME[name]


@pytest.mark.skipif(not HAS_TORCH, reason="the names that compute need torch")
def test_every_name_is_at_home_where_it_is_said_to_be() -> None:
    for name in finetuner_core.__all__:
        assert getattr(finetuner, name).__module__ == finetuner_core._HOME[name]


@pytest.mark.usefixtures("acme")
def test_listing_models_imports_nothing_heavy() -> None:
    """With all plugins that the environment holds, and the toy one."""
    done = run_python(f"""
        import sys
        import finetuner
        from finetuner import FinetunerError
        print("acme/letters" in [row.full_name for row in finetuner.list_models()])
        print([name for name in {HEAVY} if name in sys.modules])
    """)
    assert (done.stdout, done.stderr) == ("True\n[]\n", "")


BLOCK_TORCH = """
    import sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize("name", ["fit", "evaluate", "build_model", "load", "EmbeddingModel"])
def test_what_computes_says_that_torch_is_missing(name: str) -> None:
    done = run_python(
        dedent(BLOCK_TORCH)
        + dedent(f"""
        import finetuner
        try:
            finetuner.{name}
        except finetuner.FinetunerError as error:
            print(error)
    """)
    )

    first, cure = done.stdout.splitlines()
    # Where torch is not installed, numpy is not either, and may be missed first.
    missing = ("torch",) if HAS_TORCH else ("torch", "numpy")
    assert first in [f"finetuner.{name} needs {package}, which is not installed." for package in missing]
    assert "pip install finetuner-mlp" in cure
    assert done.stderr == ""


def test_a_module_that_a_bug_misses_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(finetuner_core._HOME, "fit", "finetuner_core.not_there")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        finetuner.fit  # noqa: B018
