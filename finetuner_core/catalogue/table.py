"""The table of backbones, and the same rows as values and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import tabulate
from tabulate import DataRow, Line, TableFormat

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.values import BackboneInfo, LossInfo, Option, OptionValue, PoolingInfo

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
    # tabulate makes every column two wider than its header; that number can be set for the whole module alone.
    padding, tabulate.MIN_PADDING = tabulate.MIN_PADDING, 0
    try:
        table = tabulate.tabulate(cells, COLUMNS, tablefmt=_LOOK, stralign="right", disable_numparse=True)
    finally:
        tabulate.MIN_PADDING = padding
    return f"{TITLE.center(len(table.splitlines()[0])).rstrip()}\n{table}"


def render_row(row: BackboneInfo) -> str:
    """All that is known of one model, a line for each thing."""
    facts = {
        "model": row.full_name,
        "task": row.task,
        "takes": " and ".join(row.modalities),
        "output_dim": "follows from its options" if row.output_dim is None else str(row.output_dim),
        "architecture": row.architecture,
        "description": row.description,
        "parameters": "not known" if row.parameters is None else f"{row.parameters:,}",
        "poolings": f"{', '.join(row.poolings)} (the first is its default)",
        "licence": row.licence or "not known",
        "source": row.source or "not known",
    }
    lines = [f"{name:<13} {value}" for name, value in facts.items()]
    lines += [f"{'option':<13} {_option(option)}" for option in row.options]
    return "\n".join(lines)


def render_parts(rows: Sequence[tuple[str, PoolingInfo | LossInfo]]) -> str:
    """Poolings or losses by the names that they are asked for with, each with its options below it."""
    lines = []
    for name, row in rows:
        lines.append(f"{name}: {row.description}")
        if isinstance(row, LossInfo):
            lines.append(f"    for {' and '.join(row.forms)} data")
        lines += [f"    {_option(option)}" for option in row.options]
    return "\n".join(lines)


def _option(option: Option) -> str:
    default = "required" if option.required else f"default {_shown(option.default)}"
    choices = f" Allowed: {', '.join(map(str, option.choices))}." if option.choices else ""
    return f"{option.name} ({option.type}, {default}): {option.help}{choices}"


def _shown(value: OptionValue) -> str:
    if value is None:
        return "not set"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def as_json(row: BackboneInfo) -> dict[str, object]:
    """A row as `finetuner list --json` gives it."""
    return {
        "name": row.name,
        "task": row.task,
        "output_dim": row.output_dim,
        "architecture": row.architecture,
        "description": row.description,
        "full_name": row.full_name,
    }


def as_full_json(row: BackboneInfo) -> dict[str, object]:
    """A row as `finetuner show --json` gives it."""
    return as_json(row) | {
        "modalities": row.modalities,
        "parameters": row.parameters,
        "poolings": row.poolings,
        "licence": row.licence,
        "source": row.source,
        "options": [asdict(option) for option in row.options],
    }


def part_as_json(name: str, row: PoolingInfo | LossInfo) -> dict[str, object]:
    """A pooling or a loss as `finetuner list --poolings --json` or `--losses --json` gives it."""
    return asdict(row) | {"name": name}
