"""The table of backbones, and the same rows as values and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tabulate import DataRow, Line, TableFormat, tabulate

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.values import BackboneInfo

TITLE = "Finetuner backbones"
COLUMNS = ("model", "task", "output_dim", "architecture", "description")

_LOOK = TableFormat(
    lineabove=Line("┏", "━", "┳", "┓"),
    linebelowheader=Line("┡", "━", "╇", "┩"),
    linebetweenrows=None,
    linebelow=Line("└", "─", "┴", "┘"),
    headerrow=DataRow("┃", "┃", "┃"),
    datarow=DataRow("│", "│", "│"),
    padding=1,
    with_header_hide=None,
)


def list_models(task: str | None = None) -> list[BackboneInfo]:
    """The models that the installed plugins list.

    Args:
        task: only those for this task: `all`, `image-to-image`, `text-to-image` or `text-to-text`.

    Returns:
        Rows by task, then in the order in which their plugin lists them.

    Raises:
        UnknownNameError: if there is no such task.
    """
    return catalogue().list_backbones(task)


def describe_models(task: str | None = None) -> None:
    """Prints the table of the models that the installed plugins list.

    A plugin that did not load gets one line on stderr; the others' rows are printed all the same.

    Args:
        task: only those for this task: `all`, `image-to-image`, `text-to-image` or `text-to-text`.

    Raises:
        UnknownNameError: if there is no such task.
    """
    print(render(list_models(task)))
    for problem in catalogue().problems:
        print(problem, file=sys.stderr)


def render(rows: Sequence[BackboneInfo]) -> str:
    """Rows as the table, its title above."""
    cells = [
        (row.name, row.task, "-" if row.output_dim is None else str(row.output_dim), row.architecture, row.description)
        for row in rows
    ]
    table = tabulate(cells, COLUMNS, tablefmt=_LOOK, stralign="right", disable_numparse=True)
    return f"{TITLE.center(len(table.splitlines()[0])).rstrip()}\n{table}"


def as_json(row: BackboneInfo) -> dict[str, str | int | None]:
    """A row as `finetuner list --json` gives it."""
    return {
        "name": row.name,
        "task": row.task,
        "output_dim": row.output_dim,
        "architecture": row.architecture,
        "description": row.description,
        "full_name": row.full_name,
    }
