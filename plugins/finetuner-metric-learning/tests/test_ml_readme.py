"""The tables of the README say what the rows say. `python tests/test_ml_readme.py` writes them anew."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finetuner_core.plugin import Option
from finetuner_metric_learning.parts import KINDS, MINER
from finetuner_metric_learning.rows import LEFT_OUT, LOSSES

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- from the rows -->", "<!-- to here -->"


def shown(options: Iterable[Option]) -> str:
    return ", ".join(f"`{option.name}`" + default(option) for option in options)


def default(option: Option) -> str:
    if option.default is None:
        return " (required)" if option.required else ""
    value = option.default
    return f" {value:g}" if type(value) is float else f" {str(value).lower() if isinstance(value, bool) else value}"


def tables() -> str:
    lines = [
        "| loss | what it is | own options, with their defaults | pairs | miner | masks |",
        "|---|---|---|---|---|---|",
    ]
    for row in LOSSES:
        own = [option for option in row.info.options if option.name == "num_classes" or option in row.options]
        marks = " | ".join("yes" if mark else "no" for mark in (row.pairs, row.mines, row.masks and not row.width))
        lines.append(f"| `{row.name}` | {row.description} | {shown(own)} | {marks} |")
    lines += ["", "| miner | its options, each with `miner_` before it |", "|---|---|"]
    lines += [f"| `{name}` | {shown(options)} |" for name, options in MINER.classes.items()]
    lines += ["", "| option | one of | their options, with its name before them |", "|---|---|---|"]
    for kind in KINDS:
        if kind is not MINER:
            own = list(dict.fromkeys(option for options in kind.classes.values() for option in options))
            lines.append(f"| `{kind.name}` | {', '.join(f'`{name}`' for name in kind.classes)} | {shown(own)} |")
    lines += ["", "| left out | why |", "|---|---|", *(f"| `{name}` | {why} |" for name, why in LEFT_OUT.items())]
    return "\n".join(lines)


def test_the_tables_are_in_step_with_the_rows() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.partition(START)[2].partition(END)[0].strip() == tables(), "python tests/test_ml_readme.py writes them"


if __name__ == "__main__":
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    README.write_text(f"{before}{START}\n{tables()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
