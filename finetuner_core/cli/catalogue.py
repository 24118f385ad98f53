"""`finetuner list`, `show` and `doctor`: what is installed."""

from __future__ import annotations

import json
import sys

import click

from finetuner_core.catalogue import doctor as examination
from finetuner_core.catalogue.names import search
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.catalogue.table import (
    as_full_json,
    as_json,
    describe_models,
    list_models,
    part_as_json,
    render_parts,
    render_row,
)
from finetuner_core.cli import parameters


@click.command("list")
@click.option("--task", help="Only models for this task.")
@click.option("--search", "pattern", metavar="PATTERN", help="All names that can be reached, such as 'convnext*'.")
@click.option("--losses", is_flag=True, help="The losses instead, with their options.")
@click.option("--poolings", is_flag=True, help="The poolings instead, with their options.")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def list_command(task: str | None, pattern: str | None, losses: bool, poolings: bool, in_json: bool) -> None:
    """Lists the models, the losses or the poolings that the installed plugins offer."""
    if losses or poolings:
        if task is not None or pattern is not None or (losses and poolings):
            raise click.UsageError("--losses and --poolings each stand alone, but for --json.")
        problems = catalogue().problems
        parts = catalogue().list_losses() if losses else catalogue().list_poolings()
        as_dicts = [part_as_json(name, row) for name, row in parts]
        click.echo(json.dumps(as_dicts, indent=2, ensure_ascii=False) if in_json else render_parts(parts))
    elif pattern is not None:
        if task is not None:
            raise click.UsageError("--search and --task do not go together: a name alone does not tell its task.")
        names, problems = search(catalogue(), pattern)
        click.echo(json.dumps(names, indent=2) if in_json else "\n".join(names) or "No model matches.")
    elif in_json:
        problems = catalogue().problems
        click.echo(json.dumps([as_json(row) for row in list_models(task)], indent=2, ensure_ascii=False))
    else:
        describe_models(task)
        return
    for problem in problems:
        click.echo(problem, err=True)


@click.command()
@click.argument("model")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
@parameters.verbose
def show(model: str, in_json: bool) -> None:
    """Describes one MODEL: what it takes, its options and poolings, its licence and source."""
    from finetuner_core.artifacts.saved import find_row

    row = find_row(model)
    click.echo(json.dumps(as_full_json(row), indent=2, ensure_ascii=False) if in_json else render_row(row))


@click.command()
@click.option("--load", is_flag=True, help="Also build a model of each plugin, with random weights.")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def doctor(load: bool, in_json: bool) -> None:
    """Examines the installation; exits with 1 where something is wrong."""
    report = examination.examine(load=load)
    click.echo(json.dumps(report.as_json(), indent=2) if in_json else report.render())
    sys.exit(1 if report.problems else 0)
