"""`finetuner runs`: the state of each run, what to do with it, and the settings in which runs differ."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetuner_core.cli import cli


def runs(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["runs", *map(str, arguments)])


def listed(root: Path) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in json.loads(runs(root, "--json").stdout)}


def make(folder: Path, steps: int = 6, manifest: object = None, *, checkpoint: bool = True, **settings: object) -> Path:
    """A run of two epochs of four steps, as `fit` leaves it."""
    folder.mkdir(parents=True)
    own = {"model": "letters", "train_data": "/d/a.csv", "loss": None, "epochs": 2, "out": str(folder), **settings}
    told = {"format_version": 1, "started": "2026-11-29T22:51:08+0000", "settings": own,
            "data": {"evaluation on a.csv": "5 labelled texts in 2 classes, sha256 0"}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(told if manifest is None else manifest))
    before = {"evaluation": "before", "step": 0, "data": "a.csv", "metrics": {"mrr": 0, "map": 0.25}}
    lines: list[dict[str, Any]] = [before]
    lines += [{"step": n, "epoch": 1 + (n > 4), "loss": 1.0, "items": 8, "seconds": 0.5} for n in range(1, steps + 1)]
    if folder.name == "run":
        lines += [{"evaluation": "after", "step": steps, "data": "a.csv", "metrics": {"mrr": 1, "map": 0.75}}]
        (folder.parent / "finetuner.json").write_text("{}")
    elif checkpoint:
        (folder / "checkpoints" / "step-0000004").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_states(tmp_path: Path) -> None:
    make(tmp_path / "done" / "run", 8)
    make(tmp_path / "deep" / "halted.run")
    make(tmp_path / "early.run", 2, checkpoint=False)
    make(tmp_path / "memory.run", train_data={"in_memory": "DataFrame"})
    make(tmp_path / "damaged.run", manifest=[])
    make(tmp_path / "newer.run", manifest={"format_version": 9, "settings": {}})
    make(tmp_path / "gone" / "run", 8)
    (tmp_path / "gone" / "finetuner.json").unlink()
    (tmp_path / "other.run").mkdir()
    make(tmp_path / ".hidden" / "run")
    found = listed(tmp_path)
    assert {name: run["state"] for name, run in found.items()} == {
        "damaged": "broken", "deep/halted": "stopped", "done": "finished", "early": "stopped", "gone": "broken",
        "memory": "stopped", "newer": "broken",
    }  # fmt: skip
    assert found["deep/halted"]["note"] == f"go on with: finetuner fit --resume {tmp_path / 'deep' / 'halted'}"
    assert "the same command begins anew" in found["early"]["note"]
    assert "in Python" in found["memory"]["note"]
    assert "run.json is damaged" in found["damaged"]["note"]
    assert 'format version "9", and this Finetuner reads 1' in found["newer"]["note"]
    done = found["done"]
    assert (done["steps"], done["all_steps"], done["seconds"], done["epoch"]) == (8, 8, 4.0, 2)
    assert (done["metric"], done["before"], done["after"]) == ("map", 0.25, 0.75)
    assert (found["early"]["steps"], found["early"]["all_steps"]) == (2, None)
    shown = runs(tmp_path).output
    assert "map 0.250 -> 0.750" in shown
    assert f"deep/halted: stopped, go on with: finetuner fit --resume {tmp_path / 'deep' / 'halted'}." in shown


@pytest.mark.parametrize("where", ["x.run", "y", "y/run"])
def test_a_folder_may_be_a_run_itself(where: str, tmp_path: Path) -> None:
    make(tmp_path / "x.run")
    make(tmp_path / "y" / "run")
    assert [*listed(tmp_path / where)] == [where[0]]


def test_a_run_that_goes_on_is_told_by_its_lock(tmp_path: Path) -> None:
    folder = make(tmp_path / "x.run")
    (folder / "lock").write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "started": "now"}))
    assert listed(tmp_path)["x"]["state"] == "stopped"
    with (folder / "lock").open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert (listed(tmp_path)["x"]["state"], listed(tmp_path)["x"]["note"]) == ("running", f"pid {os.getpid()}")
    assert listed(tmp_path)["x"]["state"] == "stopped"


def test_a_last_line_cut_short_is_forgiven_and_others_are_counted(tmp_path: Path) -> None:
    folder = make(tmp_path / "x.run")
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'nonsense\n{"step": "7", "epoch": 2}\n' + b"x" * 3_000_000 + b'\n{"step": 7, "epo')
    run = listed(tmp_path)["x"]
    assert (run["steps"], run["damaged_lines"]) == (6, 3)
    assert "3 lines of metrics.jsonl are damaged" in run["note"]


def test_only_what_differs_has_a_column(tmp_path: Path) -> None:
    make(tmp_path / "a.run", seed=0, batch_size=8, loss_options={"margin": 0.3}, columns={})
    make(tmp_path / "b.run", seed=1, batch_size=8, loss_options={}, columns=None)
    header, _, first, second, *_ = runs(tmp_path).output.splitlines()
    assert header.split()[-3:] == ["metric", "seed", "loss_options.margin"]
    assert "batch_size" not in header
    assert first.split()[-2:] == ["0", "0.3"]
    assert second.split()[-2:] == ["1", "-"]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert "There are no runs in" in runs(tmp_path).output
    assert json.loads(runs(tmp_path, "--json").output) == []
    assert runs(tmp_path / "missing").exit_code == 2
    (tmp_path / "file").touch()
    assert "is a file; runs are looked for in a folder." in runs(tmp_path / "file").stderr


def test_names_agree_with_those_that_are_written() -> None:
    written = pytest.importorskip("finetuner_core.training.run")
    from finetuner_core.runs import find, record

    assert (find.MANIFEST, find.LINES, find.CHECKPOINTS, find.LOCK, record.VERSION) == (
        written.MANIFEST, written.LINES, written.CHECKPOINTS, written.LOCK, written.VERSION,
    )  # fmt: skip
    assert written.run_folder(Path("/x")) == Path("/x" + find.SUFFIX)
