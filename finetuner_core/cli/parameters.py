"""Parameters that more than one command takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click


def parse_mapping(
    context: click.Context, parameter: click.Parameter, value: str | Sequence[str] | None
) -> dict[str, str]:
    """`a=b,c=d`, or `a=b` several times, as a mapping."""
    # Only what maps headers is split at commas: an option's value may hold one (hidden_sizes=512,128).
    parts = value.split(",") if isinstance(value, str) else value or ()
    mapping: dict[str, str] = {}
    for part in parts:
        name, equals, setting = part.partition("=")
        if not (name.strip() and equals and setting.strip()):
            raise click.BadParameter(f'"{part}" is not of the form name=value.', context, parameter)
        # A prompt ends in a space.
        mapping[name.strip()] = setting.strip() if isinstance(value, str) else setting
    return mapping


def parse_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """`64,128` as whole numbers."""
    parts = [] if value is None else value.split(",")
    for part in parts:
        if not part.strip().isdecimal():
            raise click.BadParameter(f'"{part}" is no whole number; write 32,64.', context, parameter)
    return tuple(map(int, parts)) or None


def _parse_names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(","))


def _be_verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["FINETUNER_VERBOSE"] = "1"


verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="Show what the libraries below print.",
)
columns = click.option(
    "--columns",
    callback=parse_mapping,
    metavar="NAME=HEADER,...",
    help="Maps other headers, such as anchor=question,positive=answer.",
)
skip_bad_items = click.option(
    "--skip-bad-items",
    is_flag=True,
    help="Leave out rows that cannot be used (a broken image, an empty cell).",
)
metrics = click.option(
    "--metrics", callback=_parse_names, metavar="NAME,...", help="What to measure, such as recall@20,ndcg@10."
)
encoding = click.option("--encoding", metavar="NAME", help="Of files of text that are not UTF-8, such as cp1252.")
