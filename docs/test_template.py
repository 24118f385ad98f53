"""The template is what the tutorial ends with, and it is copied whole under another name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_examples import DOCS, blocks

TEMPLATE = DOCS / "plugin-template"


def copy(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TEMPLATE / "new.py"), name, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tutorial_ends_with_the_template() -> None:
    written = {name: text for _, name, text in blocks(DOCS / "tutorial.md") if name.startswith(("src/", "tests/"))}
    assert len(written) == 4
    for name, text in written.items():
        assert text == (TEMPLATE / name).read_text("utf-8"), f"{name} differs between tutorial and template"
    # The tutorial's pyproject is the template's, without what a published package has beside it.
    first = next(text for _, name, text in blocks(DOCS / "tutorial.md") if name == "pyproject.toml")
    assert set(first.splitlines()) <= set((TEMPLATE / "pyproject.toml").read_text("utf-8").splitlines())


def test_a_copy_has_another_name_throughout(tmp_path: Path) -> None:
    done = copy("sparrow", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    files = [file for file in (tmp_path / "new").rglob("*") if file.is_file()]
    assert {file.relative_to(tmp_path / "new").as_posix() for file in files} == {
        "README.md",
        "pyproject.toml",
        "src/finetuner_sparrow/__init__.py",
        "src/finetuner_sparrow/backbone.py",
        "src/finetuner_sparrow/plugin.py",
        "tests/test_conformance.py",
        "tests/test_ngrams.py",
    }
    assert 'sparrow = "finetuner_sparrow.plugin"' in (tmp_path / "new" / "pyproject.toml").read_text("utf-8")
    assert not [file for file in files if "acme" in file.read_text("utf-8").lower()]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("Sparrow", 'The name is "Sparrow"'), ("my-plugin", 'The name is "my-plugin"'), ("sparrow", "holds something")],
)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str, wrong: str) -> None:
    (tmp_path / "file").touch()
    done = copy(name, tmp_path)
    assert done.returncode == 1
    assert wrong in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
