"""`finetuner fit --config FILE`: a file gives what is not typed, and what is wrong in it is said in a line or two."""

from __future__ import annotations

import csv
import functools
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import finetuner_core
from finetuner_core.cli import cli
from finetuner_core.cli.config import read_config
from finetuner_core.data.sources import TrainingSet
from finetuner_core.errors import OptionError

HAS_TOML = any(map(importlib.util.find_spec, ("tomllib", "tomli")))
needs_toml = pytest.mark.skipif(not HAS_TOML, reason="needs Python 3.11 or tomli")

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
    pytest.mark.usefixtures("acme"),
]

BASE: dict[str, Any] = {"model": "letters", "train": "data.csv", "out": "model"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["fit", *map(str, arguments)])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(**settings: object) -> Path:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps(settings))
        return file

    return write


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(finetuner_core.fit)

    @functools.wraps(finetuner_core.fit)
    def fit(*given: object, **settings: object) -> None:
        calls.append(dict(signature.bind(*given, **settings).arguments))

    monkeypatch.setattr(finetuner_core, "fit", fit)
    return calls


@needs_toml
def test_toml_gives_every_kind_of_setting(tmp_path: Path, called: list[dict[str, Any]]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        """
        model = "letters"
        train = "data.csv"
        eval = "held.csv"
        out = "model"
        epochs = 7
        learning_rate = 1e-4
        weight_decay = 0
        loss = "triplet"
        loss_options = { margin = 0.3 }
        matryoshka = [8, 4]
        metrics = ["map", "recall@20"]
        freeze = 2
        skip_bad_steps = true
        pretrained = false
        schedule = "linear"
        max_time = "8h"

        [columns]
        text = "question"
        """
    )
    assert run("--config", file).exit_code == 0
    assert called == [
        {
            "model": "letters",
            "train_data": "data.csv",
            "eval_data": "held.csv",
            "out": "model",
            "epochs": 7,
            "learning_rate": 1e-4,
            "weight_decay": 0,
            "loss": "triplet",
            "loss_options": {"margin": 0.3},
            "matryoshka": [8, 4],
            "metrics": ["map", "recall@20"],
            "freeze": 2,
            "skip_bad_steps": True,
            "pretrained": False,
            "schedule": "linear",
            "max_time": "8h",
            "columns": {"text": "question"},
        }
    ]


@pytest.mark.parametrize(
    ("settings", "typed", "name", "expected"),
    [
        ({"epochs": 7}, ["--epochs", "2"], "epochs", 2),
        ({"epochs": 7}, [], "epochs", 7),
        ({}, ["other"], "model", "other"),
        ({}, ["other", "more.csv"], "train_data", "more.csv"),
        ({}, ["other", "a.csv", "b.csv"], "train_data", ("a.csv", "b.csv")),
        ({}, ["--out", "elsewhere"], "out", "elsewhere"),
        ({"eval": "a.csv"}, ["--eval", "b.csv"], "eval_data", "b.csv"),
        ({"freeze": "backbone"}, ["--freeze", "2"], "freeze", 2),
        ({"freeze": "backbone"}, [], "freeze", "backbone"),
        ({"pretrained": True}, ["--from-scratch"], "pretrained", False),
        ({"pretrained": False}, [], "pretrained", False),
        ({"quiet": True}, [], "quiet", True),
        ({"columns": {"text": "a", "label": "b"}}, ["--columns", "text=c"], "columns", {"text": "c", "label": "b"}),
        ({"loss_options": {"margin": 1, "mining": "hard"}}, ["--loss-option", "margin=2"], "loss_options",
         {"margin": "2", "mining": "hard"}),
        ({"loss": "triplet", "loss_options": {"margin": 1}}, ["--loss", "infonce"], "loss_options", {}),
        ({"loss": "triplet", "loss_options": {"margin": 1}}, ["--loss", "triplet"], "loss_options", {"margin": 1}),
        ({"loss": "triplet", "loss_options": {"margin": 1}}, ["--loss", "infonce", "--loss-option", "temperature=1"],
         "loss_options", {"temperature": "1"}),
        ({"model_options": {"dropout": 0.5}}, ["numbers"], "model_options", {}),
        ({"train": [{"data": "a", "loss": "triplet", "loss_options": {"margin": 1}, "weight": 2}]},
         ["--loss", "infonce"], "train_data", [TrainingSet("a", weight=2)]),
        ({"train": {"data": "a", "columns": {"text": "a", "label": "b"}}}, ["--columns", "text=c"], "train_data",
         TrainingSet("a", columns={"text": "c", "label": "b"})),
        ({"train": ["a", {"data": "b", "name": "second"}]}, [], "train_data", ["a", TrainingSet("b", name="second")]),
    ],
)  # fmt: skip
def test_what_is_typed_goes_first(
    settings: dict[str, Any],
    typed: list[str],
    name: str,
    expected: object,
    write: Callable[..., Path],
    called: list[dict[str, Any]],
) -> None:
    result = run(*typed, "--config", write(**BASE | settings))
    assert result.exit_code == 0, result.output
    assert called[0][name] == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epoch": 3}, ['there is no setting "epoch". Did you mean "epochs"']),
        ({"batch-size": 3}, ['"batch-size". Did you mean "batch_size"']),
        ({"trian": "x"}, ['"trian". Did you mean "train"', "the arguments of finetuner.fit"]),
        ({"return": 1}, ['there is no setting "return"']),
        ({"a\n\x1b[2J": 1}, ['"a\\n\\x1b[2J"']),
        ({"train_data": "b.csv"}, ["train_data and train are the same setting"]),
        ({"epochs": "many"}, ['epochs is "many"; it must be a whole number.']),
        ({"epochs": True}, ["epochs is true; it must be a whole number."]),
        ({"epochs": 1.5}, ["epochs is 1.5; it must be a whole number."]),
        ({"epochs": None}, ["epochs is null; it must be a whole number."]),
        ({"learning_rate": "1e-4"}, ['learning_rate is "1e-4"; it must be a number.']),
        ({"skip_bad_items": "yes"}, ['skip_bad_items is "yes"; it must be true or false.']),
        ({"precision": "float16"}, ['precision is "float16"; it must be one of auto, float32, bfloat16.']),
        ({"freeze": 1.5}, ["freeze is 1.5; it must be text or a whole number."]),
        ({"matryoshka": "8,4"}, ['matryoshka is "8,4"; it must be a list of whole numbers.']),
        ({"matryoshka": [8, "4"]}, ["matryoshka is", "a list of whole numbers."]),
        ({"metrics": "map"}, ['metrics is "map"; it must be a list of names.']),
        ({"columns": {"text": 1}}, ["columns is", "a table of names and values that are text."]),
        ({"loss_options": "margin=0.3"}, ['loss_options is "margin=0.3"; it must be a table of names and values.']),
        ({"loss_options": {"margin": {"deep": 1}}}, ["loss_options is", "a table of names and values."]),
        ({"model": 3}, ["model is 3; it must be text."]),
        ({"train": 3}, ["train is 3; it must be a file or folder, as text, a table"]),
        ({"train": []}, ['train is "[]"; it must be a file or folder']),
        ({"train": [3]}, ["train holds 3; each must be a file or folder"]),
        ({"train": {"weight": 2}}, ["train holds", "without data = FILE"]),
        ({"train": {"data": "a", "wieght": 2}}, ['train has no "wieght". Did you mean "w', "A data set has data,"]),
        ({"train": {"data": "a", "weight": "2"}}, ['weight in train is "2"; it must be a number.']),
        ({"eval": ["a"]}, ["eval is", "it must be a file or folder, as text."]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(settings: dict[str, Any], words: list[str], write: Callable[..., Path]) -> None:
    result = run("--config", write(**BASE | settings))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) <= 2
    for part in words:
        assert part in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.json", "{", "c.json is no JSON that can be read: "),
        ("c.json", "[1]", 'c.json holds "[1]"; it must hold settings by their names.'),
        ("c.json", '{"epochs": 1, "epochs": 2}', '"epochs" stands twice'),
        ("c.json", '{"val_split": NaN}', "NaN is no JSON"),
        ("c.json", "[" * 100_000, "nested"),
        ("c.json", '{"format_version": 99, "settings": {}}', "has format version 99; this Finetuner reads 1."),
        ("c.json", '{"format_version": 1}', "holds no settings. It is damaged."),
        ("c.json", '{"format_version": 1, "settings": {"train_data": {"in_memory": "DataFrame"}}}', "a train_data in"),
        pytest.param("c.toml", "epochs = ", "c.toml is no TOML that can be read: ", marks=needs_toml),
        pytest.param("c.toml", "epochs = 1\nepochs = 2", "c.toml is no TOML that can be read: ", marks=needs_toml),
        pytest.param("c.toml", "x = " + "[" * 100_000, "c.toml is no TOML that can be read: ", marks=needs_toml),
        pytest.param("c.toml", "epochs = 1979-05-27", 'epochs is "1979-05-27"; it must be', marks=needs_toml),
        ("c.yaml", "epochs: 1", "must end in .toml or .json"),
        ("", "", "cannot be read"),
        ("x" * 5000 + ".toml", "", "cannot be read"),
        ("~nobody-is-called-so.json", "", "cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read(name: str, text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / (name or "missing.json") if name[:1] != "~" else Path(name)
    if text or name == "c.yaml":
        file.write_text(text)
    result = run("--config", file)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_a_folder_of_a_run_is_told_which_file_it_means(tmp_path: Path) -> None:
    (tmp_path / "model" / "run").mkdir(parents=True)
    (tmp_path / "model" / "run" / "run.json").write_text("{}")
    assert (
        f"--config takes a file: {tmp_path / 'model' / 'run' / 'run.json'}"
        in run("--config", tmp_path / "model").stderr
    )
    assert "takes a file: FILE.toml or FILE.json" in run("--config", tmp_path).stderr


def test_what_is_in_neither_is_missing(write: Callable[..., Path]) -> None:
    for name, said in (("model", "'MODEL'"), ("train", "'TRAIN...'"), ("out", "'--out'")):
        file = write(**{key: value for key, value in BASE.items() if key != name})
        result = run("--config", file)
        assert (result.exit_code, result.stderr) == (2, f"Error: Missing {said_of(said)}, here or in {file}.\n")


def said_of(name: str) -> str:
    return f"option {name}" if name == "'--out'" else f"argument {name}"


def test_a_weight_needs_its_data_beside_it(write: Callable[..., Path], called: list[dict[str, Any]]) -> None:
    result = run("--config", write(**BASE), "--weight", "2")
    assert result.exit_code == 2
    assert "--weight is for each TRAIN of the command line, and there is none." in result.stderr
    assert run("letters", "a", "b", "--config", write(**BASE), "--weight", "2", "--weight", "1").exit_code == 0
    assert called[0]["train_data"] == [TrainingSet("a", weight=2.0), TrainingSet("b", weight=1.0)]


def test_toml_without_a_reader_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.toml"
    file.write_text("epochs = 1")
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(OptionError, match="pip install tomli"):
        read_config(file)


def test_every_argument_of_fit_can_stand_in_a_file(write: Callable[..., Path]) -> None:
    parameters = inspect.signature(finetuner_core.fit).parameters
    defaults = {name: own.default for name, own in parameters.items() if own.default is not inspect.Parameter.empty}
    assert read_config(write(**defaults)) == defaults


def test_a_run_is_repeated_from_its_own_file(tmp_path: Path) -> None:
    data = tmp_path / "texts.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        rows = [[f"{label * 3}{number}", label] for label in "abcdef" for number in range(8)]
        csv.writer(file).writerows([["text", "label"], *rows])
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--epochs", 2, "--batch-size", 8, "--loss", "triplet", "--loss-option", "margin=0.3", "--device", "cpu")
    assert run("letters", data, "--out", first, *options).exit_code == 0
    result = run("--config", first / "run" / "run.json", "--out", second)
    assert result.exit_code == 0, result.output

    def losses(out: Path) -> list[float]:
        lines = map(json.loads, (out / "run" / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    assert losses(first) == losses(second) != []
    weights = sorted(file.relative_to(first) for file in first.rglob("*.safetensors"))
    assert weights
    for name in weights:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    settings = [json.loads((out / "run" / "run.json").read_text())["settings"] for out in (first, second)]
    assert settings[0] == settings[1] | {"out": str(first)}
