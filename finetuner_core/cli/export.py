"""`finetuner export` and `push`: a model for other tools and for other people."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from finetuner_core.cli import parameters
from finetuner_core.cli.use import as_model_name


@click.command()
@click.argument("model")
@click.option("--to", default="onnx", show_default=True, metavar="onnx", help="The form.")
@click.option("--out", required=True, metavar="DIR", help="Where to write it: graphs, tokenizer.json, export.json.")
@click.option("--int8", is_flag=True, help="Matrices and tables in int8: a quarter of the size.")
@click.option("--data", metavar="DATA", help="Compare the vectors on its items; else on a few that are made up.")
@click.option("--column", metavar="HEADER", help="Which column of DATA; else the one that fits the model.")
@click.option("--modality", metavar="text|image|vector", help="What DATA's items are, for a model that takes more.")
@parameters.encoding
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
@parameters.verbose
def export(model: str, out: str, in_json: bool, **settings: object) -> None:
    """Writes MODEL, a name or the folder of a saved one, so that it computes without Finetuner and torch.

    Pooling, projection and scaling to length 1 are in it. Its vectors are compared with the model's before it is there.
    """
    import finetuner_core

    run = finetuner_core.export  # which says what to install where torch is missing

    from finetuner_core.export.report import render_export

    given = {name: value for name, value in settings.items() if value is not None}
    result = run(as_model_name(model), out, **given)  # type: ignore[arg-type]
    if in_json:
        click.echo(json.dumps({"path": str(result.path), "parts": [asdict(part) for part in result.parts]}, indent=2))
    else:
        click.echo(render_export(result))


@click.command()
@click.argument("folder")
@click.argument("repository")
@click.option("--private/--public", default=None, help="Who sees it, if it is new. [as the account is set]")
@click.option("--message", metavar="TEXT", help="Of the commit.")
@parameters.verbose
def push(folder: str, repository: str, private: bool | None, message: str | None) -> None:
    """Uploads the saved model in FOLDER to the Hugging Face Hub as REPOSITORY (user/name), without the log of its run.

    You are known to the Hub by `hf auth login`, or by a token in HF_TOKEN.
    """
    from finetuner_core.artifacts.push import push as upload

    given = {} if message is None else {"message": message}
    click.echo(f"Pushed to {upload(folder, repository, private=private, **given)}")
