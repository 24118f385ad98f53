"""`finetuner evaluate` and `encode`: what a model is for."""

from __future__ import annotations

import json
from pathlib import Path

import click

from finetuner_core.cli import parameters

batch_size = click.option(
    "--batch-size", type=int, metavar="N", help="The most items computed at a time. [what fills the device]"
)
device = click.option("--device", metavar="auto|cuda|mps|cpu", help="Where to compute. [auto]")


def as_model_name(model: str) -> str:
    """A saved model's folder may be given without `./`, where no model of the table has its name."""
    from finetuner_core.artifacts.folder import is_saved_model
    from finetuner_core.catalogue.table import list_models

    listed = any(model in (row.name, row.full_name) for row in list_models())
    return str(Path(model).expanduser().resolve()) if is_saved_model(model) and not listed else model


@click.command()
@click.argument("model")
@click.argument("data")
@parameters.columns
@click.option("--split-column", metavar="HEADER", help="Search only rows in which it holds test, val, dev or eval.")
@parameters.metrics
@click.option(
    "--widths",
    callback=parameters.parse_numbers,
    metavar="N,...",
    help="Measure the first N numbers of each vector too.",
)
@click.option("--per-query", metavar="FILE", help="Write a row for each query: FILE.csv or FILE.jsonl.")
@parameters.skip_bad_items
@parameters.encoding
@batch_size
@device
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
@parameters.verbose
def evaluate(model: str, data: str, in_json: bool, per_query: str | None, **settings: object) -> None:
    """Measures how well MODEL, a name or the folder of a saved one, searches DATA.

    DATA is a file or folder, or search data in the layout of BEIR: its folder, or one of its qrels files.
    """
    import finetuner_core

    run = finetuner_core.evaluate  # which says what to install where torch is missing

    from finetuner_core.evaluation.report import render_metrics
    from finetuner_core.evaluation.result import check_writable

    if per_query is not None:
        check_writable(per_query)
    given = {name: value for name, value in settings.items() if value is not None}
    metrics = run(as_model_name(model), data, **given)  # type: ignore[arg-type]
    if per_query is not None:
        file = metrics.write(per_query)
        click.echo(f"{len(metrics.query_ids):,} queries written to {file}", err=True)
    click.echo(json.dumps(metrics, indent=2) if in_json else render_metrics(metrics))


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--out", required=True, metavar="FILE", help="Where to write the vectors: .npy or .parquet.")
@click.option(
    "--dtype",
    metavar="float32|float16|int8|binary",
    help="How each number is written; binary is a bit of each. [float32]",
)
@click.option(
    "--ranges", metavar="FILE.npy", help="Quantise as another run did, by the .ranges.npy it left; for --dtype int8."
)
@click.option("--column", metavar="HEADER", help="Which column to encode; else the one that fits the model.")
@click.option("--modality", metavar="text|image|vector", help="For a model that takes more than one.")
@click.option("--side", metavar="query|document", help="What the items are for, where it makes a difference.")
@click.option("--width", type=int, metavar="N", help="Keep the first N numbers of each vector (see --matryoshka).")
@parameters.encoding
@batch_size
@device
@click.option("--quiet", is_flag=True, help="Print nothing.")
@parameters.verbose
def encode(model: str, data: str, out: str, **settings: object) -> None:
    """Writes the embeddings of the items in DATA, in their order: a table, an image folder, a tar, an .npz.

    A run that was stopped goes on when it is called again in the same way.
    """
    import finetuner_core

    run = finetuner_core.encode  # which says what to install where torch is missing

    given = {name: value for name, value in settings.items() if value is not None}
    try:
        run(as_model_name(model), data, out, **given)  # type: ignore[arg-type]
    except KeyboardInterrupt as stopped:
        if not stopped.args:
            raise
        click.echo(f"\n{stopped}", err=True)  # below the ^C of a terminal
        raise click.exceptions.Exit(130) from None
