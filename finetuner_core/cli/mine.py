"""`finetuner mine`."""

from __future__ import annotations

import click

from finetuner_core.cli import parameters
from finetuner_core.cli.use import as_model_name, batch_size, device
from finetuner_core.errors import OptionError
from finetuner_core.values import quote


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--out", required=True, metavar="FILE", help="Where to write: .csv, .jsonl or .parquet.")
@click.option("--corpus", metavar="FILE", help="More documents to search, beside those of DATA.")
@click.option("--negatives", type=int, metavar="N", help="How many for each row. [3]")
@click.option("--top-k", type=int, metavar="K", help="The last rank at which a negative is looked for. [50]")
@click.option("--skip-top", type=int, metavar="N", help="How many of the first ranks are left out. [0]")
@click.option(
    "--relative-margin",
    metavar="SHARE|none",
    help="A negative scores below its positive by this share of it. [0.05]",
)
@click.option("--absolute-margin", type=float, metavar="X", help="A negative scores below its positive by this much.")
@click.option("--min-score", type=float, metavar="X", help="What scores less is no negative.")
@click.option("--max-score", type=float, metavar="X", help="What scores more is no negative.")
@click.option("--sampling", metavar="top|random", help="Which are taken of those that are left. [top]")
@click.option("--cross-encoder", metavar="NAME", help="Score the first K anew with it; margins are then of its scores.")
@click.option("--scores", is_flag=True, help="Write the scores of positive and negatives too, for distillation.")
@parameters.columns
@click.option("--split-column", metavar="HEADER", help="Mine only for rows in which it holds train.")
@parameters.skip_bad_items
@parameters.encoding
@batch_size
@device
@click.option("--seed", type=int, metavar="N", help="What every random choice follows from. [0]")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@parameters.verbose
def mine(model: str, data: str, out: str, relative_margin: str | None, **settings: object) -> None:
    """Finds hard negatives for DATA with MODEL, and writes them into FILE, which fit then trains on.

    A hard negative is a text, image or vector near a query that is not known to belong to it. A run that was stopped
    goes on when it is called again in the same way.
    """
    import finetuner_core

    given = {name: value for name, value in settings.items() if value is not None}
    if relative_margin is not None:
        given["relative_margin"] = _margin(relative_margin)
    finetuner_core.mine(as_model_name(model), data, out, **given)  # type: ignore[arg-type]


def _margin(text: str) -> float | None:
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"--relative-margin is {quote(text)}; it is a number such as 0.05, or none.") from None
