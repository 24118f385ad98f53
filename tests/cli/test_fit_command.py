"""`finetuner fit`: what is typed reaches `fit`, and what is wrong is said in a line or two."""

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
from finetuner_core.data.sources import TrainingSet

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
    pytest.mark.usefixtures("acme"),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["fit", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [[f"{label * 3}{number}", label] for label in "abcdef" for number in range(8)]
        csv.writer(file).writerows([["text", "label"], *rows])
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def fit(model: str, train_data: str, **settings: object) -> None:
        calls.append({"model": model, "train_data": train_data, **settings})

    monkeypatch.setattr(finetuner_core, "fit", fit)
    return calls


def test_what_is_not_given_is_left_to_fit(called: list[dict[str, Any]]) -> None:
    assert run("letters", "data.csv", "--out", "model").exit_code == 0
    # Flags and mappings have a value in any case: that of fit's own default.
    assert called == [
        {
            "model": "letters",
            "train_data": "data.csv",
            "out": "model",
            "columns": {},
            "pooling_options": {},
            "lora_options": {},
            "adapter": False,
            "allow_changed_versions": False,
            "model_options": {},
            "loss_options": {},
            "skip_bad_items": False,
            "skip_bad_steps": False,
            "quiet": False,
            "pretrained": True,
            "freeze": None,
        }
    ]


@pytest.mark.parametrize(
    ("option", "value", "name", "expected"),
    [
        ("--eval", "held.csv", "eval_data", "held.csv"),
        ("--columns", "text=question,label=topic", "columns", {"text": "question", "label": "topic"}),
        ("--split-column", "part", "split_column", "part"),
        ("--val-split", "0.3", "val_split", 0.3),
        ("--skip-bad-items", None, "skip_bad_items", True),
        ("--from-scratch", None, "pretrained", False),
        ("--pooling", "cls", "pooling", "cls"),
        ("--pooling-option", "heads=4", "pooling_options", {"heads": "4"}),
        ("--output-dim", "64", "output_dim", 64),
        ("--text-model", "hf/x", "text_model", "hf/x"),
        ("--lora", "8", "lora", 8),
        ("--lora-option", "targets=query,value", "lora_options", {"targets": "query,value"}),
        ("--adapter", None, "adapter", True),
        ("--model-option", "hidden_sizes=512,128", "model_options", {"hidden_sizes": "512,128"}),
        ("--loss", "triplet", "loss", "triplet"),
        ("--loss-option", "margin=0.3", "loss_options", {"margin": "0.3"}),
        ("--epochs", "7", "epochs", 7),
        ("--batch-size", "8", "batch_size", 8),
        ("--learning-rate", "1e-4", "learning_rate", 1e-4),
        ("--weight-decay", "0", "weight_decay", 0.0),
        ("--warmup", "0", "warmup", 0.0),
        ("--schedule", "linear", "schedule", "linear"),
        ("--max-grad-norm", "0", "max_grad_norm", 0.0),
        ("--freeze", "backbone", "freeze", "backbone"),
        ("--freeze", "2", "freeze", 2),
        ("--freeze", "image", "freeze", "image"),
        ("--freeze", "²", "freeze", "²"),
        ("--augment", "crop+mirror", "augment", "crop+mirror"),
        ("--precision", "bfloat16", "precision", "bfloat16"),
        ("--device", "cpu", "device", "cpu"),
        ("--matryoshka", "32,64", "matryoshka", (32, 64)),
        ("--memory", "512", "memory", 512),
        ("--eval-every", "50", "eval_every", 50),
        ("--patience", "3", "patience", 3),
        ("--metrics", "recall@20,map", "metrics", ("recall@20", "map")),
        ("--best-metric", "map", "best_metric", "map"),
        ("--seed", "0", "seed", 0),
        ("--quiet", None, "quiet", True),
    ],
)
def test_an_option_reaches_fit(
    option: str, value: str | None, name: str, expected: object, called: list[dict[str, Any]]
) -> None:
    result = run("letters", "data.csv", "--out", "model", option, *([] if value is None else [value]))
    assert result.exit_code == 0, result.output
    assert called[0][name] == expected
    assert type(called[0][name]) is type(expected)


def test_options_by_name_may_come_several_times(called: list[dict[str, Any]]) -> None:
    run("letters", "d", "--out", "m", "--loss-option", "temperature=0.1", "--loss-option", "learnable=true")
    assert called[0]["loss_options"] == {"temperature": "0.1", "learnable": "true"}


def test_a_prompt_keeps_the_space_at_its_end(called: list[dict[str, Any]]) -> None:
    run("letters", "d", "--out", "m", "--model-option", "query_prompt=query: ")
    assert called[0]["model_options"] == {"query_prompt": "query: "}


def test_several_data_sets(called: list[dict[str, Any]]) -> None:
    losses = ("--loss", "infonce", "--loss", "cosent", "--loss-option", "cosent.temperature=0.1")
    assert run("letters", "a.csv", "b.csv", "--out", "m").exit_code == 0
    assert (
        run("letters", "a.csv", "b.csv", "--out", "m", "--weight", "2", "--weight", "1", "--loss", "x").exit_code == 0
    )
    assert run("letters", "a.csv", "b.csv", "--out", "m", *losses).exit_code == 0
    assert called[0]["train_data"] == ("a.csv", "b.csv")
    assert called[1]["train_data"] == [TrainingSet("a.csv", weight=2), TrainingSet("b.csv", weight=1)]
    assert called[1]["loss"] == "x"
    assert called[2]["train_data"] == [
        TrainingSet("a.csv", loss="infonce", loss_options={}),
        TrainingSet("b.csv", loss="cosent", loss_options={"temperature": "0.1"}),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "b", "--weight", "1"), "--weight is given 1 times for 2 data sets; give it once for each"),
        (("a", "--loss", "x", "--loss", "y"), "--loss is given 2 times for 1 data sets; give it once for each"),
        (
            ("a", "b", "--loss", "x", "--loss", "y", "--loss-option", "margin=1"),
            '"margin=1" does not say of which loss.\nWrite LOSS.margin=1 with one of x, y.',
        ),
        (("a", "--matryoshka", "3,x"), '"x" is no whole number; write 32,64'),
    ],
)
def test_what_does_not_go_with_several_data_sets(
    arguments: tuple[str, ...], words: str, called: list[dict[str, Any]]
) -> None:
    result = run("letters", *arguments, "--out", "m")
    assert (result.exit_code, called) == (2, [])
    assert words in result.output


def test_every_setting_of_fit_can_be_typed() -> None:
    from finetuner_core.cli.fit import fit as command
    from finetuner_core.training.fit import fit

    typed = {parameter.name for parameter in command.params} - {"verbose", "weights", "config", "resume"}
    renamed = {"train": "train_data", "from_scratch": "pretrained"}
    assert {renamed.get(str(name), name) for name in typed} == set(inspect.signature(fit).parameters)


def test_a_real_run(data: Path, tmp_path: Path) -> None:
    settings = ("--epochs", 2, "--batch-size", 12, "--learning-rate", 0.02, "--loss-option", "temperature=0.1")
    result = run("letters", data, "--out", tmp_path / "model", "--output-dim", 6, "--device", "cpu", *settings)
    assert result.exit_code == 0, result.output
    assert "Data      36 labelled texts in 6 classes" in result.output
    assert "Epoch     2/2" in result.output
    assert "recall@1" in result.output
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["data"][0]["loss"]["options"]["temperature"] == 0.1
    assert len(record["history"]) == 2
    model = finetuner_core.load(tmp_path / "model")
    assert model.output_dim == 6
    # What was saved can be trained again, and takes its own place.
    again = run(tmp_path / "model", data, "--out", tmp_path / "model", "--epochs", 1, "--batch-size", 12, "--quiet")
    assert again.exit_code == 0, again.output
    assert again.output == ""
    assert (
        json.loads((tmp_path / "model" / "training.json").read_text())["evaluation"][0]["before"]
        == record["evaluation"][0]["after"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("leters", "DATA"), 'No model is named "leters". Did you mean "letters"'),
        (("letters", "nothing.csv"), 'There is no file or folder "nothing.csv"'),
        (("letters", "DATA", "--epochs", "0"), "epochs is 0; it must be at least 1"),
        (("letters", "DATA", "--epochs", "many"), "'many' is not a valid integer"),
        (("letters", "DATA", "--schedule", "step"), 'schedule is "step"; allowed are cosine, linear'),
        (("letters", "DATA", "--freeze", "head"), 'freeze is "head"'),
        (("letters", "DATA", "--freeze", "²"), 'freeze is "'),
        (("letters", "DATA", "--freeze", "9", "--output-dim", "4"), "freeze is 9, but letters has 2 stages: in, out"),
        (("letters", "DATA", "--loss", "tripet"), 'There is no loss "tripet". Did you mean "triplet"'),
        (("letters", "DATA", "--loss-option", "margin"), '"margin" is not of the form name=value'),
        (("letters", "DATA", "--loss-option", "margin=1"), 'loss infonce has no option "margin"'),
        (("letters", "DATA", "--model-option", "size=1"), 'acme/letters has no option "size"'),
        (("letters", "DATA", "--pooling", "native"), 'does not support the pooling "native"'),
        (("letters", "DATA", "--output-dim", "0"), "output_dim is 0"),
        (("letters", "DATA", "--columns", "text=words"), 'has no column "words"'),
        (("letters", "DATA", "--split-column", "part"), 'has no column "part"'),
        (("letters", "DATA", "--val-split", "2"), "val_split is 2.0"),
        (("letters", "DATA", "--device", "gpu"), 'device "gpu" cannot be used'),
        (("pixels", "DATA"), "pixels takes images"),
        (("letters", "DATA", "--no-such-option"), "No such option"),
        (("letters",), "Missing argument 'TRAIN...'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_or_two_and_nothing_is_left(
    arguments: tuple[str, ...], words: str, data: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    result = run(*[str(data) if part == "DATA" else part for part in arguments], "--out", tmp_path / "model", "--quiet")
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert words in result.output
    assert len(result.output.splitlines()) <= 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_else_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    result = run("letters", data, "--out", tmp_path / "mine")
    assert result.exit_code == 2
    assert "mine holds something else than a saved model" in result.output
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_to_save_in_has_to_be_named(data: Path) -> None:
    result = run("letters", data)
    assert result.exit_code == 2
    assert "Missing option '--out'" in result.output


def test_the_folder_of_a_saved_model_needs_no_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: list[dict[str, Any]]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "finetuner.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert run("mine", "data.csv", "--text-model", "mine", "--out", "model").exit_code == 0
    assert (called[0]["model"], called[0]["text_model"]) == (str(tmp_path / "mine"),) * 2


def test_a_run_that_ended_early_goes_on_as_it_was_begun(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    given = ["--epochs", 2, "--batch-size", 8, "--device", "cpu", "--quiet"]
    stopped = run("letters", data, "--out", out, *given, "--max-time", "0.000001s")
    assert stopped.exit_code == 75
    assert "Stopped after step 1 of" in stopped.stderr
    assert f"finetuner fit --resume {out}" in stopped.stderr
    refused = run("--resume", out, "--epochs", 3)
    assert refused.exit_code == 2
    assert "--epochs was given too" in refused.stderr
    assert run("--resume", out, "--quiet").exit_code == 0
    assert (out / "run" / "run.json").is_file()
    ended = run("--resume", out)
    assert ended.exit_code == 2
    assert "is a run that has ended" in ended.stderr
