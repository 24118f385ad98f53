from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetuner_core.data import report as reporting
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.render import render
from finetuner_core.data.report import Lengths, Report, describe, make_report
from finetuner_core.data.sources import read_sources
from finetuner_core.values import Side


def pairs(rows: Sequence[tuple[str, ...]], source: str = "my.csv") -> Dataset:
    names = ("q", "a", "n")
    columns = tuple(
        Column(name, "text", list(items)) for name, items in zip(names, zip(*rows, strict=True), strict=False)
    )
    return Dataset(columns, source=source)


def labelled(count: int, classes: int) -> Dataset:
    texts = [f"{'x' * (row % 5 + 1)}{row:03}" for row in range(count)]
    return Dataset((Column("text", "text", texts),), [f"l{row % classes}" for row in range(count)], "my.csv")


def report_of(train: Any, evaluation: Any = None, **settings: Any) -> Report:
    return make_report(read_sources(None, train, evaluation), **settings)


def test_lengths() -> None:
    values = np.random.default_rng(0).integers(3, 500, 1000)
    found = Lengths.of(values.tolist(), "characters")
    ordered = sorted(values.tolist())
    assert (found.shortest, found.longest, found.measured) == (ordered[0], ordered[-1], 1000)
    assert sum(value <= found.median for value in ordered) >= 500 >= sum(value < found.median for value in ordered)
    assert sum(value <= found.most for value in ordered) >= 950 >= sum(value < found.most for value in ordered)
    assert sum(found.counts) == 1000
    for low, high, count in [*zip(found.edges, found.edges[1:], found.counts, strict=False)][:-1]:
        assert count == sum(low <= value < high for value in ordered)
    assert found.counts[-1] == sum(value >= found.edges[-2] for value in ordered)


@pytest.mark.parametrize("values", [[5], [7, 7, 7], [1, 2], [1, 10**6], [0, 0]])
def test_lengths_of_few(values: list[int]) -> None:
    found = Lengths.of(values, "pixels")
    assert (found.shortest, found.longest, sum(found.counts)) == (min(values), max(values), len(values))


def test_labelled() -> None:
    (part,) = report_of(labelled(90, 3), labelled(4, 2)).parts
    assert (part.form, part.rows, part.held_out, part.unused) == ("labelled", 90, None, [])
    assert part.classes is not None
    assert (part.classes.number, part.classes.largest, part.classes.alone) == (3, ("l0", 30), 0)
    (column,) = part.columns
    assert (column.header, column.role, column.different, column.tokens) == ("text", "text", 90, None)
    assert column.lengths is not None
    assert (column.lengths.shortest, column.lengths.median, column.lengths.longest) == (4, 6, 8)
    assert [example["label"] for example in part.examples] == ["l0", "l2", "l2"]
    assert part.problems == []


def test_roles_of_a_file(tmp_path: Path) -> None:
    rows = "".join(f"q{row},d{row},n{row},{row}\n" for row in range(90))
    (tmp_path / "faq.csv").write_text(f"query,document,negative,id\n{rows}")
    (part,) = report_of(tmp_path / "faq.csv").parts
    assert [(column.header, column.role) for column in part.columns] == [
        ("query", "anchor"),
        ("document", "positive"),
        ("negative", "negative"),
    ]
    assert (part.unused, part.how, part.held_out) == (["id"], "by query", "18 pairs of texts with 1 hard negative")


def test_tokens_are_counted_by_the_model() -> None:
    asked: list[tuple[int, Side | None]] = []

    def count(texts: Sequence[object], side: Side | None) -> tuple[list[int], int]:
        asked.append((len(texts), side))
        return [len(str(text)) for text in texts], 3

    (part,) = report_of(pairs([(f"q{row}", f"a{row}") for row in range(100)]), count_tokens=count).parts
    assert asked == [(80, "query"), (80, "document")]
    assert [column.tokens and column.tokens.cut for column in part.columns] == [3, 3]
    assert "tokens" in render(report_of(labelled(90, 3), count_tokens=count))


def test_of_much_a_part_is_measured_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_LENGTHS", 10)
    report = report_of(labelled(100, 3), labelled(4, 2))
    lengths = report.parts[0].columns[0].lengths
    assert lengths is not None
    assert lengths.measured == 10
    assert "(measured on rows spread evenly: characters 10 of 100)" in render(report)


def test_images_and_vectors(tmp_path: Path) -> None:
    for number in range(8):
        Image.new("RGB", (10 + number, 5)).save(tmp_path / f"{number}.png")
    images = Dataset((Column("image", "image", [tmp_path / f"{row}.png" for row in range(8)]),), ["x", "y"] * 4)
    (part,) = report_of(images, images).parts
    lengths = part.columns[0].lengths
    assert lengths is not None
    assert (lengths.unit, lengths.shortest, lengths.longest) == ("pixels", 10, 17)
    assert part.examples[0] == {"image": str(tmp_path / "0.png"), "label": "x"}
    vectors = Dataset((Column("v", "vector", np.eye(8, dtype=np.float32)),), ["x", "y"] * 4)
    report = report_of(vectors, vectors)
    assert report.parts[0].columns[0].width == 8
    assert "8 numbers" in render(report)


def test_scores() -> None:
    columns = pairs([("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]).columns
    data = Dataset(columns, scores=np.array([[0], [1], [2], [5]], np.float32))
    report = report_of(data, data)
    assert report.parts[0].scores == (0, 2, 5)
    assert [column.role for column in report.parts[0].columns] == ["anchor", "candidate"]
    assert "scores     0 to 5, 2 on average" in render(report)


def test_problems_end_the_report_and_errors_fail() -> None:
    data = pairs([("a", "a"), ("c", "d")])
    report = report_of(data, data)
    assert report.fails
    lines = render(report).splitlines()
    assert lines[-1] == "Training would fail."
    assert 'Warning: a positive that is its anchor: 1 row, such as "a"' in lines
    assert any(line.startswith("Error: my.csv has 2 pairs for training, fewer than a batch of 64.") for line in lines)
    assert not report_of(data, data, batch_size=2).fails
    assert report_of(labelled(90, 3), Dataset(labelled(2, 2).columns, ["x", "y"])).fails


def test_several_parts_say_whose_problem_it_is() -> None:
    own = [("a", "a"), *((f"q{row}", f"a{row}") for row in range(9))]
    text = render(report_of([pairs(own, "one.csv"), labelled(90, 3)], labelled(4, 2), batch_size=4))
    assert 'Warning: one.csv: a positive that is its anchor: 1 row, such as "a"' in text
    assert text.index("one.csv: ") < text.index("my.csv: ")


def test_leakage_is_reported() -> None:
    report = report_of(pairs([(f"q{row}", f"a{row}") for row in range(70)]), pairs([("q1", "a1"), ("new", "a2")]))
    assert report.leakage["given"].queries == 1
    text = render(report)
    assert "Found in training and in evaluation: 2 of 2 documents." in text
    assert "as well: 1 of 2; 1 with what" in text.replace("\n  ", " ")
    assert not report.fails


def test_lines_are_as_wide_as_a_terminal() -> None:
    long = [(f"{'q' * 300}{row}", f"a{row} \n\t{'b ' * 200}") for row in range(100)]
    assert max(map(len, render(report_of(pairs([*long, *long]))).splitlines())) <= 100


def test_it_can_be_written_as_json() -> None:
    own = [(f"q{row}", f"a{row}", "n") for row in range(90)]
    for train in (pairs(own), labelled(90, 3), [labelled(90, 3), pairs(own)]):
        report = report_of(train)
        assert json.loads(json.dumps(report.as_dict()))["fails"] is False


def test_a_short_version_for_the_beginning_of_training(tmp_path: Path) -> None:
    rows = "".join(f"q{row % 40},d{row % 25}\n" for row in range(90)) + ",d\n"
    (tmp_path / "faq.csv").write_text(f"query,document\n{rows}")
    lines = describe(read_sources(None, tmp_path / "faq.csv", skip_bad_items=True))
    assert [word for word, _ in lines] == ["Data", "Held out", "Skipped"]
    assert lines[0][1].endswith("faq.csv (query as anchor, document as positive)")
    assert "pairs of texts (by query), " in lines[1][1]
    assert "documents also in training" in lines[1][1]
    assert lines[2][1] == "1 row that cannot be used"
    data = pairs([("a", "a"), ("b", "c")])
    given = describe(read_sources(None, data, data))
    assert [word for word, _ in given] == ["Data", "Held out", "Note", "Note"]
    assert given[0][1] == "2 pairs of texts, from my.csv"
    assert 'A positive that is its anchor: 1 row, such as "a"' in [text for _, text in given]
