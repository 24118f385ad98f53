"""Runs the code of README and docs as it stands there, page by page, each in a folder of its own.

A block is Python, or shell lines that start with `finetuner`, or a file where a name follows its language. A block
after a comment `<!-- not run: why -->` is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, file name and text of each block that is to be run."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [(language, name, text) for skipped, language, name, text in found if not skipped]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"

    run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(DOCS)!r}); import demo, pathlib; "
        "demo.write_digits(pathlib.Path('digits.npz'))")  # fmt: skip
    python: list[str] = []
    for language, name, text in blocks(page):
        if name:
            (tmp_path / name).write_text(text, "utf-8")
            if language == "python":
                run(sys.executable, name)
        elif language == "python":
            # Later blocks of a page go on where earlier ones left off.
            python.append(text)
            run(sys.executable, "-W", "error", "-c", "\n".join(python))
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith("finetuner "):
                    run(*shlex.split(line, comments=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
