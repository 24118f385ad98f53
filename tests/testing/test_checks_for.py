"""What a third party calls: which checks there are, how they are named, and which of them may fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import finetuner_core.testing as kit
from finetuner_core.errors import FinetunerError, OptionError
from finetuner_core.testing import checks_for
from finetuner_core.testing.check import BACKBONE, LOSS, METADATA, POOLING
from tests.conftest import HAS_TORCH

METADATA_IDS = ["entry_point", "light_import", "same_rows", "no_socket", "rows"]
BACKBONE_IDS = [
    *("modalities", "preprocess", "pickle", "inputs", "features", "width", "distinct", "batch", "order", "padding"),
    *("eval", "bf16", "gradient", "stages", "save", "leftovers", "unknown_option", "offline"),
]
POOLING_IDS = ["width", "padding", "one_token", "gradient"]
LOSS_IDS = ["scalar", "gradient", "references", "scored", "excluded", "no_pairs", "order"]

# What pytest itself runs here in a process of its own has no plugin to check: each check fails, and says so.
CONFTEST = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch")

sys.meta_path.insert(0, Block())
"""


def ids(*arguments: Any, **named: Any) -> list[str]:
    return [str(parameter.id) for parameter in checks_for(*arguments, **named)]


def run_pytest(folder: Path, source: str, conftest: str = "") -> str:
    (folder / "test_it.py").write_text(dedent(source))
    (folder / "conftest.py").write_text(conftest)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "400"}
    command = [sys.executable, "-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder).stdout


def test_the_manifest_is_frozen() -> None:
    """Who adds a check here has to say so in the changelog: it may fail the plugins of others."""
    assert list(METADATA) == METADATA_IDS
    assert list(BACKBONE) == BACKBONE_IDS
    assert list(POOLING) == POOLING_IDS
    assert list(LOSS) == LOSS_IDS


def test_the_docstring_of_the_kit_lists_all_checks_in_their_order() -> None:
    assert re.findall(r"^ {4}(?:metadata-)?(\w+)  +\S", kit.__doc__ or "", re.MULTILINE) == [
        *METADATA_IDS,
        *BACKBONE_IDS,
        *POOLING_IDS,
        *LOSS_IDS,
    ]


@pytest.mark.skipif(not HAS_TORCH, reason="the modules that compute need torch")
def test_every_check_is_a_function_that_says_what_it_proves() -> None:
    for manifest in (METADATA, BACKBONE, POOLING, LOSS):
        for name, module in manifest.items():
            function = getattr(__import__(f"finetuner_core.testing.{module}", fromlist=[""]), f"check_{name}")
            assert len(function.__doc__ or "") > 40


def test_every_check_has_an_id_and_the_order_is_that_of_the_manifest() -> None:
    metadata = [f"metadata-{name}" for name in METADATA_IDS]
    assert ids("acme") == metadata
    assert ids("acme", backbones=["tiny", "acme/org/large"], poolings=["first"], losses=["spread"]) == [
        *metadata,
        *(f"{backbone}-{name}" for backbone in ("tiny", "org/large") for name in BACKBONE_IDS),
        *(f"pooling-first-{name}" for name in POOLING_IDS),
        *(f"loss-spread-{name}" for name in LOSS_IDS),
    ]
    assert ids("acme", backbones={"tiny": {"size": 3}}) == ids("acme", backbones=("tiny",))


def test_options_reach_the_subject() -> None:
    check: Any = checks_for("acme", backbones={"tiny": {"size": 3}})[-1].values[0]
    assert (check.subject.full_name, check.subject.options) == ("acme/tiny", {"size": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbones": "tiny"}, r'backbones takes a list of names, not "tiny": write backbones=\["name"\]'),
        ({"losses": 3}, 'losses takes a list of names, not "3"'),
        ({"backbones": ["tiny", "tiny"]}, "backbones names one twice: tiny, tiny"),
        ({"backbones": [3]}, 'backbones takes names, each with a mapping of options, not "3"'),
        ({"backbones": {"tiny": 3}}, 'not "tiny": 3'),
        ({"backbones": {"tiny": {"pooling": "max"}}}, 'sets pooling for "tiny", which the checks choose themselves'),
        ({"backbones": ["loss-a"], "losses": ["a"]}, 'Two checks would be named "loss-a-order"'),
        ({"expected_failures": {"tiny-bf16": "old"}}, '"tiny-bf16", which is no check'),
        (
            {"backbones": ["tiny"], "expected_failures": {"tiny-bfloat16": "old"}},
            '"tiny-bfloat16", which is no check. Did you mean "tiny-bf16"',
        ),
        ({"backbones": ["tiny"], "expected_failures": {"tiny-bf16": " "}}, 'no reason for "tiny-bf16"'),
        ({"backbones": ["tiny"], "expected_failures": {"tiny-bf16": True}}, 'no reason for "tiny-bf16"'),
    ],
)
def test_what_makes_no_sense_is_refused_at_collection(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        checks_for("acme", **arguments)


def test_without_pytest_the_kit_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(FinetunerError, match=r"needs pytest, which is not installed\.\nInstall it: pip install pytest"):
        checks_for("acme")


def test_the_kit_imports_neither_pytest_nor_what_computes() -> None:
    code = (
        "import sys, finetuner_core.testing, finetuner_core.testing.metadata\n"
        "print({'pytest', 'torch', 'numpy'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_expected_failures_are_strict(tmp_path: Path) -> None:
    """One that fails is as expected; one that passes fails, since its reason is gone."""
    output = run_pytest(
        tmp_path,
        """
        import pytest
        from finetuner_core.testing import checks_for

        @pytest.mark.parametrize("check", checks_for("nobody", expected_failures={
            "metadata-entry_point": "it was never installed",
            "metadata-rows": "they were thought to be wrong",
        }))
        def test_conformance(check):
            if not check.id.startswith("metadata-r"):
                check()
        """,
    )
    assert "XFAIL test_it.py::test_conformance[metadata-entry_point] - it was never installed" in output
    assert re.search(r"FAILED test_it.py::test_conformance\[metadata-rows\] - \[XPASS\(strict\)\]", output)
    assert "[metadata-same_rows] - finetuner_core.testing.check.CheckError: No plugin with the namespace" in output


def test_an_unknown_expected_failure_stops_the_collection(tmp_path: Path) -> None:
    output = run_pytest(
        tmp_path,
        """
        from finetuner_core.testing import checks_for
        checks_for("nobody", expected_failures={"metadata-row": "?"})
        """,
    )
    assert 'expected_failures names "metadata-row", which is no check. Did you mean "metadata-rows"' in output
    assert "1 error" in output


def test_without_torch_metadata_is_checked_and_the_rest_fails_and_says_what_to_install(tmp_path: Path) -> None:
    output = run_pytest(
        tmp_path,
        """
        import pytest
        from finetuner_core.testing import checks_for

        CHECKS = checks_for("nobody", backbones=["tiny"], poolings=["first"], losses=["spread"])

        @pytest.mark.parametrize("check", CHECKS)
        def test_conformance(check):
            check()
        """,
        CONFTEST,
    )
    missing = re.findall(r"CheckError: \S+ needs (?:torch|numpy), which is not installed", output)
    # Each stands in the report of the failure, and in the summary again.
    assert len(missing) >= len(BACKBONE_IDS) + len(POOLING_IDS) + len(LOSS_IDS)
    assert 'pip install "finetuner-core[train]"' in output
    assert "No plugin with the namespace" in output
    assert "skipped" not in output
