"""`finetuner check`: what data is, and what is wrong with it, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from finetuner_core.cli import parameters

if TYPE_CHECKING:
    from finetuner_core.data.report import TokenCounter
    from finetuner_core.modeling.embedding_model import EmbeddingModel
    from finetuner_core.values import Side


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--model", metavar="MODEL", help="Says what the data is for, and counts the texts that it would cut.")
@click.option("--text-model", metavar="MODEL", help="A tower of its own for the texts that ask, as for finetuner fit.")
@click.option("--eval", "eval_data", metavar="DATA", help="Evaluation data; else a part of DATA is held out.")
@parameters.columns
@click.option("--split-column", metavar="HEADER", help="A column that holds train, or test/val/dev/eval.")
@click.option("--val-split", type=float, default=0.2, metavar="SHARE", help="The share of DATA that is held out. [0.2]")
@parameters.skip_bad_items
@parameters.encoding
@click.option(
    "--batch-size", type=click.IntRange(min=2), default=64, metavar="N", help="Items, or pairs, in a step. [64]"
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="What is held out follows from it. [0]"
)
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
@parameters.verbose
def check(
    data: tuple[str, ...],
    model: str | None,
    text_model: str | None,
    eval_data: str | None,
    columns: dict[str, str],
    split_column: str | None,
    val_split: float,
    skip_bad_items: bool,
    encoding: str | None,
    batch_size: int,
    seed: int,
    in_json: bool,
) -> None:
    """Shows what DATA is understood as, and what is wrong with it; exits with code 2 where training would fail.

    DATA is what finetuner fit takes: one file or folder, or several that are trained on at once.
    """
    from finetuner_core.data.render import render
    from finetuner_core.data.report import make_report
    from finetuner_core.data.sources import read_sources

    if text_model is not None and model is None:
        raise click.UsageError("--text-model goes with --model, which is what is found.")
    row = None
    if model is not None:
        from finetuner_core.artifacts.saved import find_row
        from finetuner_core.cli.use import as_model_name

        model = as_model_name(model)
        text_model = None if text_model is None else as_model_name(text_model)
        row = find_row(model, text_model)
    sources = read_sources(
        row,
        data[0] if len(data) == 1 else data,
        eval_data,
        columns=columns,
        split_column=split_column,
        val_split=val_split,
        skip_bad_items=skip_bad_items,
        seed=seed,
        encoding=encoding,
    )
    counter = None
    if model is not None and any(column.modality == "text" for part in sources.parts for column in part.train.columns):
        import finetuner_core

        asking = finetuner_core.build_model(text_model or model)
        reads_found = text_model is not None and row is not None and row.task == "text-to-text"
        counter = _token_counter(asking, finetuner_core.build_model(model) if reads_found else asking)
    report = make_report(sources, batch_size=batch_size, count_tokens=counter)
    click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if in_json else render(report))
    if report.fails:
        sys.exit(2)


def _token_counter(asking: EmbeddingModel, found: EmbeddingModel) -> TokenCounter:
    from finetuner_core.interfaces import TextPreprocess

    def count(texts: Sequence[object], side: Side | None) -> tuple[list[int], int]:
        preprocess = (found if side == "document" else asking).preprocess("text", side)
        prepared = preprocess.prepare(texts)
        cut = sum(map(preprocess.is_cut, prepared)) if isinstance(preprocess, TextPreprocess) else 0
        return [preprocess.length(own) for own in prepared], cut

    return count
