"""The table is the text that the project was asked for, and JSON has the same rows."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import tabulate

from finetuner_core.catalogue import table
from finetuner_core.catalogue.table import as_full_json, as_json, describe_models, list_models, render, render_row
from finetuner_core.errors import UnknownNameError
from finetuner_core.values import BackboneInfo, Option
from tests.conftest import InstallPlugin

IMAGENET = "Pretrained on ImageNet"
GOLDEN_ROWS = (
    BackboneInfo("mlp", "all", None, "MLP", "Simple MLP encoder trained from scratch"),
    BackboneInfo("resnet50", "image-to-image", 2048, "CNN", IMAGENET),
    BackboneInfo("resnet152", "image-to-image", 2048, "CNN", IMAGENET),
    BackboneInfo("efficientnet_b0", "image-to-image", 1280, "CNN", IMAGENET),
    BackboneInfo("efficientnet_b4", "image-to-image", 1792, "CNN", IMAGENET),
    BackboneInfo(
        "openai/clip-vit-base-patch32",
        "text-to-image",
        512,
        "transformer",
        "Pretrained on text image pairs by OpenAI",
    ),
    BackboneInfo(
        "bert-base-cased", "text-to-text", 768, "transformer", "Pretrained on BookCorpus and English Wikipedia"
    ),
    BackboneInfo(
        "sentence-transformers/msmarco-distilbert-base-v3",
        "text-to-text",
        768,
        "transformer",
        "Pretrained on Bert, fine-tuned on MS Marco",
    ),
)
GOLDEN = """\
                                                               Finetuner backbones
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃                                            model ┃           task ┃ output_dim ┃ architecture ┃                                    description ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│                                              mlp │            all │          - │          MLP │        Simple MLP encoder trained from scratch │
│                                         resnet50 │ image-to-image │       2048 │          CNN │                         Pretrained on ImageNet │
│                                        resnet152 │ image-to-image │       2048 │          CNN │                         Pretrained on ImageNet │
│                                  efficientnet_b0 │ image-to-image │       1280 │          CNN │                         Pretrained on ImageNet │
│                                  efficientnet_b4 │ image-to-image │       1792 │          CNN │                         Pretrained on ImageNet │
│                     openai/clip-vit-base-patch32 │  text-to-image │        512 │  transformer │       Pretrained on text image pairs by OpenAI │
│                                  bert-base-cased │   text-to-text │        768 │  transformer │ Pretrained on BookCorpus and English Wikipedia │
│ sentence-transformers/msmarco-distilbert-base-v3 │   text-to-text │        768 │  transformer │     Pretrained on Bert, fine-tuned on MS Marco │
└──────────────────────────────────────────────────┴────────────────┴────────────┴──────────────┴────────────────────────────────────────────────┘
"""  # noqa: E501 - the table is as wide as it is


def names_in(text: str) -> list[str]:
    """The first column of a table, its header left out."""
    return [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]


def test_the_table_is_the_golden_one() -> None:
    assert [line.rstrip() for line in render(GOLDEN_ROWS).splitlines()] == GOLDEN.splitlines()


def test_a_table_without_rows_is_a_table() -> None:
    lines = render([]).splitlines()
    assert lines[0].strip() == "Finetuner backbones"
    assert [line[0] for line in lines[1:]] == ["┏", "┃", "┡", "└"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_what_looks_like_a_number_is_left_as_it_is() -> None:
    row = BackboneInfo("1e3", "all", 7, "007", "1.50")
    cells = render([row]).splitlines()[4].split("│")
    assert [cell.strip() for cell in cells[1:-1]] == ["1e3", "all", "7", "007", "1.50"]


def test_tabulate_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "MIN_PADDING", 5)
    render(GOLDEN_ROWS)
    assert tabulate.MIN_PADDING == 5

    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("no table")

    monkeypatch.setattr(tabulate, "tabulate", fail)
    with pytest.raises(RuntimeError, match="no table"):
        render(GOLDEN_ROWS)
    assert tabulate.MIN_PADDING == 5


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("task", "names"),
    [
        (None, ["numbers", "pixels", "both", "letters"]),
        ("all", ["numbers"]),
        ("text-to-image", ["both"]),
        ("text-to-text", ["letters"]),
    ],
)
def test_models_are_listed_and_described_by_task(
    capsys: pytest.CaptureFixture[str], task: str | None, names: Sequence[str]
) -> None:
    assert [row.name for row in list_models(task)] == names

    describe_models(task)
    printed = capsys.readouterr()
    assert names_in(printed.out) == names
    assert printed.err == ""


def test_an_unknown_task_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    for ask in (list_models, describe_models):
        with pytest.raises(UnknownNameError, match=r'^There is no task "image-to-text"\. Did you mean "'):
            ask("image-to-text")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("acme")
def test_a_plugin_that_is_not_there_gets_one_line_beside_the_table(
    install_plugin: InstallPlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("broken", "1 / 0")
    describe_models()

    printed = capsys.readouterr()
    assert names_in(printed.out) == ["numbers", "pixels", "both", "letters"]
    assert printed.err == (
        'Plugin "broken" (finetuner-broken 1.0) failed: its import raised ZeroDivisionError: division by zero\n'
    )


FULL = BackboneInfo(
    "tiny",
    "text-to-image",
    64,
    "CNN",
    "A small one",
    poolings=("native", "mean"),
    options=(
        Option("mode", "str", "fast", "How.", choices=("fast", "good")),
        Option("sizes", "ints", (512, 128), "Hidden widths."),
        Option("bias", "bool", True, "Whether."),
        Option("seed", "int", help="Which."),
        Option("width", "int", help="Of the input.", required=True),
    ),
    licence="MIT",
    source="https://example.org/tiny",
    parameters=1234567,
    namespace="acme",
)


def test_a_row_is_described_in_full() -> None:
    assert render_row(FULL).splitlines() == [
        "model         acme/tiny",
        "task          text-to-image",
        "takes         text and image",
        "output_dim    64",
        "architecture  CNN",
        "description   A small one",
        "parameters    1,234,567",
        "poolings      native, mean (the first is its default)",
        "licence       MIT",
        "source        https://example.org/tiny",
        "option        mode (str, default fast): How. Allowed: fast, good.",
        "option        sizes (ints, default 512,128): Hidden widths.",
        "option        bias (bool, default true): Whether.",
        "option        seed (int, default not set): Which.",
        "option        width (int, required): Of the input.",
    ]


def test_what_is_not_known_of_a_row_is_said() -> None:
    lines = dict(line.split(maxsplit=1) for line in render_row(GOLDEN_ROWS[0]).splitlines())
    assert lines["output_dim"] == "follows from its options"
    assert lines["parameters"] == lines["licence"] == lines["source"] == "not known"


def test_json_has_the_rows_of_the_table() -> None:
    row = json.loads(json.dumps(as_json(FULL)))
    assert row == {
        "name": "tiny",
        "task": "text-to-image",
        "output_dim": 64,
        "architecture": "CNN",
        "description": "A small one",
        "full_name": "acme/tiny",
    }
    assert set(table.COLUMNS) - {"model"} < set(row)
    assert as_json(GOLDEN_ROWS[0])["output_dim"] is None


def test_json_of_one_row_has_all_that_is_known() -> None:
    row = json.loads(json.dumps(as_full_json(FULL)))
    assert row.items() >= as_json(FULL).items()
    assert row["modalities"] == ["text", "image"]
    assert row["poolings"] == ["native", "mean"]
    assert (row["parameters"], row["licence"], row["source"]) == (1234567, "MIT", "https://example.org/tiny")
    assert [option["name"] for option in row["options"]] == ["mode", "sizes", "bias", "seed", "width"]
    assert row["options"][1] == {
        "name": "sizes",
        "type": "ints",
        "default": [512, 128],
        "help": "Hidden widths.",
        "choices": [],
        "minimum": None,
        "required": False,
    }
