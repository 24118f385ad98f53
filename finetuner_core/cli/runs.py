"""`finetuner runs`: the runs below a folder, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click

from finetuner_core.cli import parameters
from finetuner_core.errors import FolderError
from finetuner_core.values import printable, quote


@click.command()
@click.argument("folder", default=".")
@click.option("--json", "in_json", is_flag=True, help="As JSON, with all settings.")
@parameters.verbose
def runs(folder: str, in_json: bool) -> None:
    """Lists the runs of finetuner fit below FOLDER, and compares them.

    A run is going on, was stopped (a line says how it goes on), has finished, or is broken (a line says why). Of their
    settings those are shown that differ.
    """
    from finetuner_core.runs.compare import as_json, render
    from finetuner_core.runs.find import find_runs
    from finetuner_core.runs.record import read_run

    root = Path(folder)
    try:
        root.stat()
    except OSError as error:
        raise FolderError(f"{quote(folder)} cannot be read: {error.strerror or error}.") from None
    if not root.is_dir():
        raise FolderError(f"{quote(folder)} is a file; runs are looked for in a folder.")
    problems: list[str] = []
    found = [read_run(own) for own in find_runs(root, problems)]
    if in_json:
        click.echo(json.dumps([as_json(run, root) for run in found], indent=2, ensure_ascii=False))
    elif found:
        click.echo(render(found, root))
    else:
        click.echo(f"There are no runs in {printable(folder)}: no folder X.run, and no folder X/run.")
    for problem in problems:
        click.echo(printable(problem), err=True)
