"""What a run leaves on disk, and whether the next one may go on with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.errors import FolderError
from finetuner_core.mining.work import Work


def test_records_grow_by_blocks_and_lose_what_is_left_of_one(tmp_path: Path) -> None:
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    records = Work(tmp_path / "w", {}).records("a", np.float32, 3, 4)
    written = []
    for numbers in records.missing(10):
        written.append(numbers.tolist())
        records.append(rows[numbers])
    assert written == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    np.testing.assert_array_equal(records[np.array([9, 0, 5])], rows[[9, 0, 5]])
    np.testing.assert_array_equal(records[2:7], rows[2:7])
    assert records.resume(10) == 10
    with records.path.open("r+b") as file:
        file.truncate(9 * 12 + 5)
    assert (records.resume(10), len(records)) == (8, 8)
    np.testing.assert_array_equal(records[:], rows[:8])


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"model": ["x", 1], "data": "y"}, []),
        ({"model": ["x", 2], "data": "y"}, ["model"]),
        ({"model": ["z", 1], "data": "w"}, ["model", "data"]),
        ({"model": ["x", 1], "data": "y", "more": None, "least": 1}, ["least"]),
    ],
)
def test_it_goes_on_only_where_nothing_changed(tmp_path: Path, now: dict[str, object], changed: list[str]) -> None:
    before = Work(tmp_path / "w", {"model": ("x", 1), "data": "y"})
    assert (before.goes_on, before.changed) == (False, ())
    (before.folder / "vectors").write_text("some")
    after = Work(tmp_path / "w", now)
    assert (after.goes_on, list(after.changed)) == (not changed, changed)
    assert (after.folder / "vectors").exists() == after.goes_on
    after.remove()
    assert not after.folder.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    folder = Work(tmp_path / "w", {"model": 1}).folder
    (folder / "manifest.json").write_text(content)
    assert not Work(folder, {"model": 1}).goes_on
    assert json.loads((folder / "manifest.json").read_text())["model"] == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    Work(tmp_path / "w", {"model": 1}).remove()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds something else\.\nMove it away"):
        Work(tmp_path / "w", {"model": 1})
    assert (tmp_path / "w" / "thesis.txt").read_text() == "mine"
