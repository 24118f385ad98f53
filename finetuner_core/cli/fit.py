"""`finetuner fit`."""

from __future__ import annotations

import click

from finetuner_core.cli import parameters


@click.command()
@click.argument("model")
@click.argument("train")
@click.option("--out", required=True, metavar="DIR", help="The folder to save the fine-tuned model in.")
@click.option("--eval", "eval_data", metavar="DATA", help="Evaluation data; else a part of TRAIN is held out.")
@parameters.columns
@click.option("--split-column", metavar="HEADER", help="A column that holds train, or test/val/dev/eval.")
@click.option("--val-split", type=float, metavar="SHARE", help="The share of TRAIN that is held out. [0.2]")
@parameters.skip_bad_items
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
@click.option("--loss", metavar="NAME", help="infonce, triplet, contrastive, or one of a plugin. [infonce]")
@click.option(
    "--loss-option",
    "loss_options",
    multiple=True,
    callback=parameters.parse_mapping,
    metavar="NAME=VALUE",
    help="An option of the loss, such as margin=0.3.",
)
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
@click.option("--seed", type=int, metavar="N", help="What every random choice follows from. [0]")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@parameters.verbose
def fit(model: str, train: str, from_scratch: bool, freeze: str | None, **settings: object) -> None:
    """Fine-tunes MODEL on TRAIN, and shows what that gained.

    MODEL is a name of finetuner list, namespace/name, or a folder written as a path: ./model.

    TRAIN is a CSV file with the columns text,label or image,label or anchor,positive or text,image; a folder with a
    folder of images for each label; or an .npz file with the arrays vectors and labels.
    """
    import finetuner_core

    # What was not given is left to the function's own defaults.
    given = {name: value for name, value in settings.items() if value is not None}
    frozen = int(freeze) if freeze is not None and freeze.isdecimal() else freeze
    finetuner_core.fit(model, train, pretrained=not from_scratch, freeze=frozen, **given)  # type: ignore[arg-type]
