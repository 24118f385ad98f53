"""A file that a person opens in a spreadsheet computes nothing that came with the data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.dataset import Column
from finetuner_core.evaluation.measures import Mean
from finetuner_core.evaluation.result import Evaluation

FORMULAS = [
    '=HYPERLINK("http://evil","a")',
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
]
PLAIN = ["a\r=1+1", "a = b", "5 - 3", "'quoted'", "mail@example.org", ""]


def written(path: Path) -> Path:
    texts = FORMULAS + PLAIN
    return Evaluation({"map": Mean(np.full(len(texts), -0.5))}, texts, queries=Column("query", "text", texts)).write(
        path
    )


def kept(text: str) -> str:
    """A return is kept as a newline: alone it would end the row, and what follows it begin one."""
    return text.replace("\r", "\n")


def test_formulas_of_the_data_are_texts(tmp_path: Path) -> None:
    with written(tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for column in ("id", "query"):
        assert [row[column] for row in rows] == [kept(text) for text in [f"'{text}" for text in FORMULAS] + PLAIN]
    # Ours may be below zero, and stay numbers.
    assert {row["map"] for row in rows} == {"-0.5"}


@pytest.mark.parametrize("text", FORMULAS)
def test_json_has_them_as_they_are(text: str, tmp_path: Path) -> None:
    lines = written(tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert text in [json.loads(line)["query"] for line in lines]
