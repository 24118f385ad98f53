"""Copies this template under the name of your plugin: `python new.py sparrow ../finetuner-sparrow`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent
PLACES = ("pyproject.toml", "README.md", "src/finetuner_acme/*.py", "tests/*.py")


def copy(name: str, folder: Path) -> None:
    """Writes the template's files into a folder, with `name` wherever it says `acme`.

    Raises:
        SystemExit: if the name cannot be one of a plugin and of a package, or the folder holds something.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SystemExit(f'The name is "{name}"; use lower-case letters, digits and _, a letter first.')
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(f"{folder} holds something; give a new folder.")
    for place in PLACES:
        for file in sorted(TEMPLATE.glob(place)):
            target = folder / file.relative_to(TEMPLATE).as_posix().replace("acme", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text("utf-8").replace("acme", name), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Copies this template under the name of your plugin.")
    parser.add_argument("name", help="of the plugin: its models are NAME/..., its package is finetuner-NAME")
    parser.add_argument("folder", type=Path, help="where it goes; a new folder")
    given = parser.parse_args()
    copy(given.name, given.folder)
    print(f"Now: cd {given.folder}, pip install -e '.[test]', pytest")
