"""`finetuner fit`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from finetuner_core.cli import parameters
from finetuner_core.cli.use import as_model_name
from finetuner_core.errors import OptionError

if TYPE_CHECKING:
    from finetuner_core.data.sources import TrainingSet


@click.command()
@click.argument("model", required=False)
@click.argument("train", nargs=-1, metavar="TRAIN...")
@click.option("--out", metavar="DIR", help="The folder to save the fine-tuned model in; the run is kept beside it.")
@click.option("--config", metavar="FILE", help="Settings in TOML or JSON, or a run.json; options given here go first.")
@click.option("--resume", metavar="DIR", help="Go on with the run of that --out, as it was begun.")
@click.option("--eval", "eval_data", metavar="DATA", help="Evaluation data; else a part of TRAIN is held out.")
@parameters.columns
@click.option("--split-column", metavar="HEADER", help="A column that holds train, or test/val/dev/eval.")
@click.option("--val-split", type=float, metavar="SHARE", help="The share of TRAIN that is held out. [0.2]")
@parameters.skip_bad_items
@parameters.encoding
@click.option("--from-scratch", is_flag=True, help="Start from random weights instead of pretrained ones.")
@click.option("--pooling", metavar="NAME", help="One of the backbone's poolings; its first where not given.")
@click.option(
    "--pooling-option",
    "pooling_options",
    multiple=True,
    callback=parameters.parse_mapping,
    metavar="NAME=VALUE",
    help="An option of the pooling, such as heads=4.",
)
@click.option(
    "--text-model", metavar="MODEL", help="A tower of its own for the texts that ask; MODEL is what is found."
)
@click.option("--output-dim", type=int, metavar="N", help="Add a projection to this width.")
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    callback=parameters.parse_mapping,
    metavar="NAME=VALUE",
    help="An option of the backbone; finetuner show MODEL lists them.",
)
@click.option("--loss", multiple=True, metavar="NAME", help="One of finetuner list --losses. [by the form of the data]")
@click.option(
    "--loss-option",
    "loss_options",
    multiple=True,
    callback=parameters.parse_mapping,
    metavar="NAME=VALUE",
    help="An option of the loss, such as margin=0.3; of several losses, triplet.margin=0.3.",
)
@click.option(
    "--weight", "weights", type=float, multiple=True, metavar="X", help="Of each TRAIN, its share of the steps."
)
@click.option(
    "--matryoshka",
    callback=parameters.parse_numbers,
    metavar="N,N,...",
    help="Let the first N numbers of a vector be a vector of their own, such as 64,128.",
)
@click.option("--memory", type=int, metavar="N", help="Compare each batch with N embeddings of past ones too.")
@click.option("--epochs", type=int, metavar="N", help="How often the data is gone through. [5]")
@click.option("--batch-size", type=int, metavar="N", help="Items, or pairs, in a step. [64]")
@click.option("--learning-rate", type=float, metavar="RATE", help="At its peak. [by what is trained]")
@click.option("--weight-decay", type=float, metavar="X", help="Of AdamW. [0.01]")
@click.option("--warmup", type=float, metavar="SHARE", help="Share of the steps in which the rate rises. [0.1]")
@click.option("--schedule", metavar="cosine|linear", help="How it falls afterwards. [cosine]")
@click.option("--max-grad-norm", type=float, metavar="X", help="Longer gradients are shortened; 0 for never. [1]")
@click.option(
    "--freeze",
    metavar="backbone|text|image|N",
    help="Keep the backbone, that of one tower (text, image, query, document), or its first N stages as they are.",
)
@click.option("--lora", type=int, metavar="RANK", help="Train small matrices beside the backbone instead of it.")
@click.option(
    "--lora-option",
    "lora_options",
    multiple=True,
    callback=parameters.parse_mapping,
    metavar="NAME=VALUE",
    help="alpha=16, dropout=0.1, or targets=query,value.",
)
@click.option("--adapter", is_flag=True, help="Save LoRA's matrices alone; else they are merged into the backbone.")
@click.option("--augment", metavar="auto|none|crop|crop+mirror", help="What happens to training images. [auto]")
@click.option("--precision", metavar="auto|float32|bfloat16", help="What training computes in. [auto]")
@click.option("--device", metavar="auto|cuda|mps|cpu", help="Where. [auto]")
@click.option("--eval-every", type=int, metavar="N", help="Evaluate every N steps as well, and keep the best weights.")
@click.option("--patience", type=int, metavar="N", help="End after N such evaluations without a better one.")
@parameters.metrics
@click.option("--best-metric", metavar="NAME", help="What is best by: map, ndcg@10, spearman, ... [by the data]")
@click.option("--seed", type=int, metavar="N", help="What every random choice follows from. [0]")
@click.option("--chunk-size", type=int, metavar="N", help="Items computed at once, to save memory. [what fits]")
@click.option("--workers", type=int, metavar="N", help="Threads that prepare items ahead. [1]")
@click.option("--skip-bad-steps", is_flag=True, help="Leave out steps whose loss is not finite.")
@click.option("--cache", metavar="DIR", help="Keep what frozen parts of the network give for later runs.")
@click.option("--views", type=int, metavar="N", help="Of that, in how many ways each image is varied. [4]")
@click.option(
    "--checkpoint-every", metavar="N|TIME", help="Keep the run's state every N steps, or every 30s, 10m, 1h. [10m]"
)
@click.option("--keep-checkpoints", type=int, metavar="N", help="How many of these are kept. [2]")
@click.option("--max-time", metavar="TIME", help="End after 30m, 8h, ..., to go on later: exit code 75.")
@click.option("--allow-changed-versions", is_flag=True, help="Go on although libraries have other versions now.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@parameters.verbose
@click.pass_context
def fit(
    context: click.Context,
    /,
    model: str | None,
    train: tuple[str, ...],
    config: str | None,
    resume: str | None,
    loss: tuple[str, ...],
    loss_options: dict[str, str],
    weights: tuple[float, ...],
    text_model: str | None,
    from_scratch: bool,
    freeze: str | None,
    **settings: object,
) -> None:
    """Fine-tunes MODEL on TRAIN, and shows what that gained.

    MODEL is a name of finetuner list, namespace/name, or a folder written as a path: ./model.

    TRAIN is a table (CSV, TSV, JSONL, Parquet, ...) with the columns text,label or image,label or anchor,positive or
    text,image; a folder with a folder of images for each label; a WebDataset tar; an .npz file with the arrays vectors
    and labels; a BEIR folder; and more: finetuner check TRAIN says what it sees in it. Of several, each step takes a
    batch of one; --weight is then given for each, and --loss once for all or for each.

    What ends early goes on with the same command, or with finetuner fit --resume DIR. Ctrl-C finishes the step and
    keeps it (exit code 130), as SIGTERM does (143) and --max-time (75); a second Ctrl-C ends at once.
    """
    import finetuner_core

    if resume is not None:
        finetuner_core.fit(**_resumed(context, resume))
        return
    if config is None:
        _check_missing(context, {"model": model, "train_data": train, "out": settings["out"]})
    # What was not given is left to the function's own defaults.
    given = {name: value for name, value in settings.items() if value is not None}
    frozen = int(freeze) if freeze is not None and freeze.isdecimal() else freeze
    if len(loss) > 1:
        loss_options, options_of = {}, _options_of(loss, loss_options)
    else:
        options_of = {}
        if loss:
            given["loss"] = loss[0]
    data: object = train[0] if len(train) == 1 else train
    if config is not None and not train and (len(loss) > 1 or weights):
        raise OptionError(
            f"{'--weight' if weights else '--loss, given several times,'} is for each TRAIN of the command line, and "
            f"there is none.\nWrite it to the data in {config}: train = [{{data = FILE, weight = 2}}, ...]."
        )
    if len(loss) > 1 or weights:
        data = _training_sets(train, loss if len(loss) > 1 else (), options_of, weights)
    if text_model is not None:
        given["text_model"] = as_model_name(text_model)
    arguments = {
        "model": None if model is None else as_model_name(model),
        "train_data": data,
        "pretrained": not from_scratch,
        "freeze": frozen,
        "loss_options": loss_options,
        **given,
    }
    if config is not None:
        arguments = _configured(context, config, arguments)
        _check_missing(context, arguments, f", here or in {config}")
    finetuner_core.fit(**arguments)  # type: ignore[arg-type]


def _check_missing(context: click.Context, arguments: Mapping[str, object], where: str = "") -> None:
    said = {"model": "argument 'MODEL'", "train_data": "argument 'TRAIN...'", "out": "option '--out'"}
    for name, own in said.items():
        if not arguments.get(name):
            raise click.UsageError(f"Missing {own}{where}.", context)


def _configured(context: click.Context, config: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """The arguments of a file, and over them those of the command line that were given there."""
    from finetuner_core.cli.config import merge, read_config

    parameter_of = {"train_data": "train", "pretrained": "from_scratch"}
    typed = {
        name: value
        for name, value in arguments.items()
        if context.get_parameter_source(parameter_of.get(name, name)) is ParameterSource.COMMANDLINE
    }
    settings = read_config(Path(os.path.expanduser(config)))  # noqa: PTH111 - Path's raises where there is no such user
    for name in ("model", "text_model"):
        if isinstance(settings.get(name), str):
            settings[name] = as_model_name(settings[name])
    return merge(settings, typed)


def _resumed(context: click.Context, out: str) -> dict[str, Any]:
    """The arguments of a run that goes on: those that it was begun with, and what may be another one each time."""
    from finetuner_core.training.run import FREE, read_settings

    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != "resume"
    }
    free = FREE - {"out"}
    for name in given:
        if name not in free:
            said = name.upper() if name in ("model", "train") else f"--{name.replace('_', '-')}"
            allowed = ", ".join(f"--{each.replace('_', '-')}" for each in sorted(free))
            raise OptionError(
                f"--resume goes on with a run as it was begun, and {said} was given too. Leave it out.\n"
                f"Together with --resume there may be {allowed}."
            )
    return read_settings(out) | given


def _training_sets(
    train: Sequence[str], losses: Sequence[str], options_of: Mapping[str, Mapping[str, str]], weights: Sequence[float]
) -> list[TrainingSet]:
    """The data sets, each with its loss and its weight."""
    from finetuner_core.data.sources import TrainingSet

    for name, values in (("--loss", losses), ("--weight", weights)):
        if values and len(values) != len(train):
            raise OptionError(f"{name} is given {len(values)} times for {len(train)} data sets; give it once for each.")
    return [
        TrainingSet(
            data,
            weight=weights[number] if weights else None,
            loss=losses[number] if losses else None,
            loss_options=options_of[losses[number]] if losses else None,
        )
        for number, data in enumerate(train)
    ]


def _options_of(losses: Sequence[str], options: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The options of each loss, where there are several: `triplet.margin=0.3`."""
    options_of: dict[str, dict[str, str]] = {loss: {} for loss in losses}
    for name, value in options.items():
        loss, _, option = name.rpartition(".")
        if loss not in options_of:
            raise OptionError(
                f'--loss-option "{name}={value}" does not say of which loss.\n'
                f"Write LOSS.{option}={value} with one of {', '.join(options_of)}."
            )
        options_of[loss][option] = value
    return options_of
