"""`finetuner check`: what data is understood as, and whether training would fail."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from finetuner_core.cli import cli

pytest.importorskip("numpy")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["check", *map(str, arguments)])


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "faq.csv"
    path.write_text("question,answer,id\n" + "".join(f"how {row}?,so {row},{row}\n" for row in range(100)))
    return path


def test_shows_what_was_understood(pairs: Path) -> None:
    result = run(pairs)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:3] == ["faq.csv: 80 pairs of texts", "  held out   20 pairs of texts, by question", "  not used   id"]
    assert lines[-1] == "Nothing stands in the way of training."


def test_as_json(pairs: Path) -> None:
    report = json.loads(run(pairs, "--json", "--val-split", "0.1").output)
    (part,) = report["parts"]
    assert (part["form"], part["rows"], part["unused"], report["fails"]) == ("pairs", 90, ["id"], False)
    assert [(column["header"], column["role"]) for column in part["columns"]] == [
        ("question", "anchor"),
        ("answer", "positive"),
    ]


def test_exits_with_2_where_training_would_fail(pairs: Path, tmp_path: Path) -> None:
    result = run(pairs, "--batch-size", 81)
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, "Training would fail.")
    assert run(pairs, "--batch-size", 80).exit_code == 0
    assert json.loads(run(pairs, "--batch-size", 81, "--json").output)["fails"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,place\na,b\n", "has name, place, and training needs the columns text,label or"),
        ("text,label\na,x\n,y\n", "a.csv, line 3: the text is empty."),
        ("anchor,positive,score\na,b,1\nc,d,high\n", 'line 3: score is "high", which is no finite number.'),
        ("text,label\na,x\nb,y\n", "too few to hold out"),
    ],
)
def test_says_what_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    result = run(tmp_path / "a.csv")
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert message in result.output


def test_columns_evaluation_data_and_several_sets(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_text("question,answer\nhow 3?,so 3\nhow now?,so\n")
    result = run(pairs, pairs, "--eval", tmp_path / "eval.csv", "--columns", "anchor=question,positive=id")
    assert result.exit_code == 2
    result = run(pairs, pairs, "--eval", tmp_path / "eval.csv", "--columns", "anchor=question")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line for line in lines if line.startswith("faq.csv")] == [
        "faq.csv: 100 pairs of texts",
        "faq.csv (2): 100 pairs of texts",
    ]
    assert f"Evaluation: 2 pairs of texts, from {tmp_path / 'eval.csv'}" in lines
    assert any("that are in the training data as well: 1 of 2" in line for line in lines)


@pytest.mark.parametrize("option", [("--batch-size", 1), ("--seed", -1)])
def test_refuses_what_training_would(option: tuple[str, int], pairs: Path) -> None:
    result = run(pairs, *option)
    assert result.exit_code == 2
    assert f"Invalid value for '{option[0]}': {option[1]} is not in the range" in result.output


def test_without_a_model_no_torch_is_imported(pairs: Path) -> None:
    code = f"import sys; from finetuner_core.cli import cli; cli(['check', {str(pairs)!r}], standalone_mode=False)"
    watched = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    done = subprocess.run([sys.executable, "-c", watched + code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-2:] == ["Nothing stands in the way of training.", "False"], done.stderr


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.usefixtures("acme")
class TestModel:
    def test_says_what_the_data_is_for_and_counts_its_tokens(self, tmp_path: Path) -> None:
        rows = "".join(f"{'word ' * (row % 40)}end {row},{row % 3}\n" for row in range(60))
        (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
        result = run(tmp_path / "a.csv", "--model", "letters")
        assert result.exit_code == 0, result.output
        assert "tokens" in result.output

    def test_says_what_does_not_fit(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("image,label\na.png,x\n")
        result = run(tmp_path / "a.csv", "--model", "letters")
        assert result.exit_code == 2
        assert "letters takes texts and needs the columns text,label or anchor,positive" in result.output

    def test_of_two_towers(self, pairs: Path, tmp_path: Path) -> None:
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        file = tmp_path / "a.csv"
        file.write_text("text,image\n" + "".join(f"number {row},{row % 3}.png\n" for row in range(30)))
        result = run(file, "--model", "pixels", "--text-model", "letters", "--batch-size", 8)
        assert result.exit_code == 0, result.output
        assert "text-image pairs" in result.output
        result = run(pairs, "--model", "letters", "--text-model", "letters")
        assert result.exit_code == 0, result.output
        assert result.output.count("tokens") == 2
        assert "--text-model goes with --model" in run(file, "--text-model", "letters").output

    def test_a_model_that_is_not_there(self, pairs: Path) -> None:
        result = run(pairs, "--model", "leters")
        assert (result.exit_code, result.output.splitlines()[0][:6]) == (2, "Error:")
