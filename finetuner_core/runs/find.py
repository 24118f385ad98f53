"""The folders of runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from finetuner_core.artifacts.folder import RUN, is_saved_model

MANIFEST, LINES, CHECKPOINTS, LOCK = "run.json", "metrics.jsonl", "checkpoints", "lock"
"""What is in the folder of a run, of what `finetuner_core.training.run` writes there."""

SUFFIX = ".run"
"""Of the folder of a run that has not ended, beside that of its model."""


def find_runs(root: Path, problems: list[str]) -> Iterator[Path]:
    """Every `X.run` and every `X/run` below a folder, or the folder itself where it is one, by name.

    Links to folders are followed, hidden folders are not looked into.

    Args:
        root: where to look.
        problems: gets a line for each folder that cannot be read.
    """
    folders, seen = [root], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            if _is_run(folder):
                yield folder
                continue
            with os.scandir(folder) as entries:
                inner = sorted(entry.name for entry in entries if entry.is_dir())
        except OSError as error:
            problems.append(f"{folder} is left out: {error.strerror or error}.")
            continue
        if is_saved_model(folder):
            inner = [name for name in inner if name == RUN]
        folders += [folder / name for name in reversed(inner) if not name.startswith(".")]


def _is_run(folder: Path) -> bool:
    name = folder.absolute().name
    if name != RUN and not (name.endswith(SUFFIX) and name != SUFFIX):
        return False
    return any((folder / own).exists() for own in (MANIFEST, LINES, CHECKPOINTS, LOCK)) or (
        name == RUN and is_saved_model(folder.absolute().parent)
    )
