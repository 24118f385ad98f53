"""Runs the code of README and docs as it stands there, page by page, each in a folder of its own.

A block is Python, or a file where a name follows its language, or shell lines: those that start with `finetuner`,
`python` or `pytest` are run, and `pip install -e .` installs what the page has written. A block after a comment
`<!-- not run: why -->` is left out.
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
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# What the page's own build backend writes for an editable install is put beside the page's folder, which then finds it
# there as it would in an environment: nothing is fetched, and this environment stays as it is.
INSTALL = "import sys, setuptools.build_meta as backend; backend.prepare_metadata_for_build_editable(sys.argv[1])"
RUN = ("python", "sh")
COMMANDS = ("finetuner ", "python ", "pytest")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, file name and text of each block that is to be run."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [(kind, name, text) for skipped, kind, name, text in found if not skipped and (name or kind in RUN)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples(page: Path, tmp_path: Path) -> None:
    folder, installed = tmp_path / "page", tmp_path / "installed"
    folder.mkdir()
    installed.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (installed, folder / "src", folder))),
    }

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"

    run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(DOCS)!r}); import demo, pathlib; "
        "demo.write_digits(pathlib.Path('digits.npz'))")  # fmt: skip
    python: list[str] = []
    for language, name, text in blocks(page):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
        elif language == "python":
            # Later blocks of a page go on where earlier ones left off.
            python.append(text)
            run(sys.executable, "-W", "error", "-c", "\n".join(python))
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith(COMMANDS):
                    run(*shlex.split(line, comments=True))
                elif line.startswith("pip install -e ."):
                    run(sys.executable, "-c", INSTALL, str(installed))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", prose):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
