"""The files that are written are read again as they were."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetuner_core.errors import DataError, FolderError
from finetuner_core.mining.write import as_cells, check_out, writing
from finetuner_core.values import Modality

TEXTS = ["a, b", 'a "quoted" one', "two\nlines", "umlaut ä\u2028", " spaces "]
SCORES = [0.5, -1.0, 1e-7, 0.1, 3.0]


def write(file: Path) -> None:
    with writing(file, file.suffix) as block:
        block({"anchor": TEXTS[:2], "score_1": SCORES[:2]})
        block({"anchor": TEXTS[2:], "score_1": SCORES[2:]})


def test_csv(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["anchor"] for row in rows] == TEXTS
    assert [float(row["score_1"]) for row in rows] == SCORES


def test_json_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").rstrip("\n").split("\n")]
    assert rows == [{"anchor": text, "score_1": score} for text, score in zip(TEXTS, SCORES, strict=True)]


def test_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == {"anchor": TEXTS, "score_1": SCORES}


def test_images_are_written_by_their_path(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos" / "1.png", Path("/elsewhere/2.png")
    assert as_cells([inside, str(outside)], "image", tmp_path) == ["photos/1.png", str(outside)]
    with pytest.raises(DataError, match=r"An image that has no file of its own \(Image\)"):
        as_cells([Image.new("RGB", (2, 2))], "image", tmp_path)


def test_vectors_are_written_as_lists(tmp_path: Path) -> None:
    assert as_cells([np.array([1, 2.5], np.float32)], "vector", tmp_path) == [[1.0, 2.5]]


@pytest.mark.parametrize(
    ("out", "modalities", "expected"),
    [
        ("a.txt", ["text"], r"a.txt must end in .csv, .jsonl or .parquet"),
        ("mined", ["text"], r"mined must end in .csv, .jsonl or .parquet"),
        ("gone/a.csv", ["text"], "there is no folder"),
        ("folder.csv", ["text"], "is a folder"),
        ("a.csv", ["vector"], "vectors do not go into a .csv"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, out: str, modalities: list[Modality], expected: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises((FolderError, DataError), match=expected):
        check_out(tmp_path / out, modalities)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FolderError, match="needs pyarrow, which is not installed"):
        check_out(tmp_path / "a.parquet", ["text"])
