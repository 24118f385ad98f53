"""`finetuner mine`: what is typed reaches `mine`, and what is wrong is said in a line or two."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import finetuner_core
from finetuner_core.cli import cli
from finetuner_core.cli.mine import mine as command

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["mine", *map(str, arguments)])


@pytest.fixture
def place(acme: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a saved model and data."""
    import finetuner

    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    finetuner.build_model("letters", pretrained=False).save("saved")
    rows = [(f"question {letter * 3}", f"answer {letter}{number}") for number, letter in enumerate("abcdefgh")]
    for split, name in (("train", "data.csv"), ("", "split.csv")):
        with (folder / name).open("w", newline="") as file:
            cells = [(*row, split or ("train" if at < 6 else "test")) for at, row in enumerate(rows)]
            csv.writer(file).writerows([("anchor", "positive", "split"), *cells])
    (folder / "corpus.txt").write_text("\n".join(f"answer {letter}" for letter in "pqrst"))
    return folder


def test_every_setting_can_be_typed_and_no_other() -> None:
    parameters = list(inspect.signature(finetuner_core.mine).parameters)
    typed = [parameter.name for parameter in command.params if parameter.name != "verbose"]
    assert sorted(typed) == sorted(parameters)


def test_what_is_typed_is_handed_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(finetuner_core, "mine", lambda *names, **settings: calls.append({"names": names, **settings}))
    flags = {"columns": {}, "scores": False, "skip_bad_items": False, "quiet": False}
    assert run("letters", "data.csv", "--out", "a.csv").exit_code == 0
    assert calls.pop() == {"names": ("letters", "data.csv", "a.csv"), **flags}
    given: dict[str, object] = {
        "negatives": 4,
        "top_k": 7,
        "skip_top": 1,
        "absolute_margin": 0.1,
        "min_score": -1.0,
        "max_score": 0.5,
    }
    given |= {"sampling": "random", "cross_encoder": "acme/x", "seed": 3, "batch_size": 8, "device": "cpu"}
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run("letters", "data.csv", "--out", "a.csv", "--relative-margin", "0.2", *options).exit_code == 0
    assert calls.pop() == {"names": ("letters", "data.csv", "a.csv"), **flags, **given, "relative_margin": 0.2}
    assert run("letters", "data.csv", "--out", "a.csv", "--relative-margin", "None").exit_code == 0
    assert calls.pop()["relative_margin"] is None


def test_it_writes_what_fit_reads(place: Path) -> None:
    result = run("saved", "data.csv", "--out", "mined.jsonl", "--corpus", "corpus.txt", "--relative-margin", "none")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Data      8 different queries, 8 rows, 13 different texts to search\n" in result.stderr
    assert result.stderr.endswith(f"Written   8 rows with 24 negatives to {place / 'mined.jsonl'}\n")
    rows = [json.loads(line) for line in (place / "mined.jsonl").read_text().splitlines()]
    assert list(rows[0]) == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
    assert sorted(path.name for path in place.iterdir()) == [
        "corpus.txt", "data.csv", "mined.jsonl", "saved", "split.csv",
    ]  # fmt: skip
    assert run("saved", "data.csv", "--out", "mined.csv", "--relative-margin", "none", "--quiet").stderr == ""
    train = ("fit", "letters", "mined.csv", "--out", "model", "--epochs", "1", "--batch-size", "4")
    fitted = CliRunner().invoke(cli, train)
    assert fitted.exit_code == 0, fitted.stderr
    assert "with 3 hard negatives" in fitted.stderr


def test_rows_that_are_held_out_are_not_mined_for(place: Path) -> None:
    settings = ("--split-column", "split", "--relative-margin", "none")
    assert run("saved", "split.csv", "--out", "mined.csv", *settings).exit_code == 0
    assert len((place / "mined.csv").read_text().splitlines()) == 7


def test_a_folder_in_the_layout_of_beir(place: Path) -> None:
    folder = place / "beir"
    (folder / "qrels").mkdir(parents=True)
    for name, count in (("corpus", 9), ("queries", 4)):
        lines = [json.dumps({"_id": f"{name[0]}{n}", "text": f"{name} {n} {'xyz'[n % 3]}"}) for n in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    judged = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(f"{judged}q3\tc3\t1\n")
    result = run("saved", "beir", "--out", "mined.csv")
    assert (result.exit_code, "has no qrels/train.tsv" in result.stderr) == (2, True)
    (folder / "qrels" / "train.tsv").write_text(f"{judged}q0\tc0\t1\nq0\tc1\t2\nq1\tc2\t1\nq1\tc4\t0\n")
    assert run("saved", "beir", "--out", "mined.csv", "--relative-margin", "none", "--negatives", 6).exit_code == 0
    with (place / "mined.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    corpus = {f"corpus {n} {'xyz'[n % 3]}" for n in range(9)}
    assert [row[0][:9] for row in rows] == ["queries 0", "queries 0", "queries 1"]
    assert {*rows[0][2:]} < corpus - {"corpus 0 x", "corpus 1 y"}
    assert len({*rows[0][2:]}) == 6
    assert {*rows[2][2:]} < corpus - {"corpus 2 z"}
    failed = run("saved", "beir", "--out", "mined.csv", "--columns", "anchor=q")
    assert "has the layout of BEIR: columns and split_column do not apply" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("saved data.csv", "Missing option '--out'"),
        ("saved gone.csv --out a.csv", 'There is no file or folder "gone.csv".'),
        ("saved data.csv --out a.npz", "a.npz must end in .csv, .jsonl or .parquet"),
        ("saved data.csv --out a.csv --relative-margin much", '--relative-margin is "much"; it is a number'),
        ("saved data.csv --out a.csv --top-k 2", "top_k is 2"),
        ("saved data.csv --out a.csv --corpus gone.txt", 'There is no file or folder "gone.txt".'),
        ("saved data.csv --out a.csv --cross-encoder acme/gone", 'No plugin opens "acme/gone" as a cross-encoder'),
        ("saved data.csv --out a.csv --max-score -0.9999", "No row has 3 negatives left"),
        ("pixels data.csv --out a.csv", "question aaa"),
        ("gone data.csv --out a.csv", "gone"),
    ],
)
@pytest.mark.usefixtures("place")
def test_says_what_is_wrong(arguments: str, expected: str) -> None:
    result = run(*arguments.split(), "--quiet")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) in (1, 2), result.stderr
    assert expected in result.stderr
    assert not Path("a.csv").exists()
