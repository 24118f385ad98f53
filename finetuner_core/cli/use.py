"""`finetuner evaluate` and `encode`: what a model is for."""

from __future__ import annotations

import json
from pathlib import Path

import click

from finetuner_core.cli import parameters
from finetuner_core.errors import FolderError

batch_size = click.option("--batch-size", type=int, metavar="N", help="Items computed at a time. [64]")
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
@click.option("--out", required=True, metavar="FILE.npy", help="Where to write the vectors, float32 (N, D).")
@click.option("--column", metavar="HEADER", help="Which column to encode; else the one that fits the model.")
@click.option("--modality", metavar="text|image|vector", help="For a model that takes more than one.")
@click.option("--width", type=int, metavar="N", help="Keep the first N numbers of each vector (see --matryoshka).")
@parameters.encoding
@batch_size
@device
@parameters.verbose
def encode(
    model: str,
    data: str,
    out: str,
    column: str | None,
    modality: str | None,
    width: int | None,
    encoding: str | None,
    batch_size: int | None,
    device: str | None,
) -> None:
    """Writes the embeddings of the items in DATA, in their order: a table, an image folder, a tar, an .npz."""
    file = Path(out).expanduser().absolute()
    if file.suffix != ".npy":
        raise FolderError(f'{out} must end in ".npy": the vectors are written in numpy\'s format.')
    if file.is_dir():
        raise FolderError(f"{out} is a folder; the vectors are written into a file.")
    if not file.parent.is_dir():
        raise FolderError(f"{out} cannot be written: there is no folder {file.parent}.")

    import finetuner_core

    build_model = finetuner_core.build_model  # which says what to install where torch is missing

    import numpy as np

    from finetuner_core.artifacts.saved import find_row
    from finetuner_core.data.forms import find_items
    from finetuner_core.data.tables import read_table
    from finetuner_core.modeling.device import choose_device

    name = as_model_name(model)
    items = find_items(read_table(data, encoding), find_row(name), column, modality)
    built = build_model(name).to(choose_device(device or "auto"))
    vectors = built.encode(items.items, modality=items.modality, batch_size=batch_size, width=width)
    scratch = file.with_name(f".{file.name}")
    try:
        with scratch.open("wb") as stream:
            np.save(stream, vectors)
        scratch.replace(file)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise FolderError(f"{out} cannot be written: {error.strerror or error}.") from None
    click.echo(f"{len(vectors):,} vectors of width {vectors.shape[1]} written to {file}", err=True)
