"""Runs that are asked to end, or whose disk is full, as real processes: what they say, their code, how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.usefixtures("acme"),
    pytest.mark.skipif(os.name == "nt", reason="has other signals"),
]

# With `HELD` a run waits after its fourth step, in the midst of training, until a test has sent a signal; with `FULL`
# the disk is full in the middle of its third checkpoint.
PROGRAM = """
import errno, os, signal, sys, time
from pathlib import Path
from finetuner_core.training import tensors
from finetuner_core.training.keeping import Keeping

def held(self, position, *rest):
    note(self, position, *rest)
    if position.done == 4:
        Path(os.environ["HELD"]).touch()
        end = time.monotonic() + 60
        while self.stop.code is None and time.monotonic() < end:
            time.sleep(0.01)
        if "TWICE" in os.environ:
            Path(os.environ["TWICE"]).touch()
            time.sleep(60)

class Full:
    def __init__(self, stream):
        self.stream = stream
    def __getattr__(self, name):
        return getattr(self.stream, name)
    def __enter__(self):
        return self
    def __exit__(self, *raised):
        self.stream.close()
    def write(self, content):
        self.stream.write(bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def opened(self, *given, **named):
    stream = open_file(self, *given, **named)
    is_third = self.name == "state.safetensors" and "0000006" in self.parent.name and "wb" in given
    return Full(stream) if is_third else stream

# Tests in the background of a shell hand on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if "HELD" in os.environ:
    note, Keeping.note = Keeping.note, held
if "FULL" in os.environ:
    open_file, Path.open = Path.open, opened

from finetuner_core.cli import main
main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 20)
    vectors = drawn.normal(size=(8, 6))[labels] + drawn.normal(size=(160, 6))
    np.savez(tmp_path / "data.npz", vectors=vectors.astype(np.float32), labels=labels)
    return tmp_path


def start(place: Path, name: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    given = "--loss siglip --epochs 2 --batch-size 16 --checkpoint-every 2 --device cpu --quiet"
    command = ["fit", "numbers", str(place / "data.npz"), "--out", str(place / name), *given.split(), *options]
    return launch(*command, **environment)


def launch(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Its exit code, and the lines that it said on stderr."""
    _, said = process.communicate(timeout=240)
    return process.returncode, said.splitlines()


def wait_for(mark: Path, process: subprocess.Popen[str]) -> None:
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def go_on(place: Path, name: str) -> None:
    """The run goes on from its checkpoint and comes to its end; that it is the same end is tested in `test_resume`."""
    assert ended(launch("fit", "--resume", str(place / name), "--quiet")) == (0, [])
    lines = [json.loads(line) for line in (place / name / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 17))
    assert not (place / f"{name}.run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_after_the_step_and_it_goes_on(number: signal.Signals, code: int, place: Path) -> None:
    process = start(place, "model", HELD=str(place / "mark"))
    wait_for(place / "mark", process)
    process.send_signal(number)
    steps = "after step 4 of 16"
    said = f"Stopped {steps}. Go on with: finetuner fit --resume {place / 'model'}"
    assert ended(process) == (code, [said])
    assert not (place / "model").exists()
    go_on(place, "model")


def test_a_second_signal_ends_it_at_once(place: Path) -> None:
    process = start(place, "model", HELD=str(place / "mark"), TWICE=str(place / "twice"))
    wait_for(place / "mark", process)
    process.send_signal(signal.SIGINT)
    wait_for(place / "twice", process)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130
    assert said == [f"Stopped where no step is left undone. Go on with: finetuner fit --resume {place / 'model'}"]
    # The step that it was in is not in a checkpoint: that of step 2 is the newest.
    assert [own.name for own in (place / "model.run" / "checkpoints").iterdir()] == ["step-0000002"]


def test_a_time_that_is_up_ends_it_after_the_step(place: Path) -> None:
    process = start(place, "model", "--max-time", "0.001")
    said = f"Stopped after step 1 of 16. Go on with: finetuner fit --resume {place / 'model'}"
    assert ended(process) == (75, [said])


def test_a_full_disk_ends_it_and_leaves_the_last_checkpoint(place: Path) -> None:
    code, said = ended(start(place, "model", FULL="yes"))
    checkpoints = place / "model.run" / "checkpoints"
    assert code == 2
    assert said == [
        f"Error: The checkpoint of step 6 cannot be written to {checkpoints}: the disk is full.",
        "Make room, and go on with the same command: the checkpoint of step 4 is whole.",
    ]
    assert sorted(own.name for own in checkpoints.iterdir()) == ["step-0000002", "step-0000004"]
    go_on(place, "model")


def test_a_file_where_the_run_would_be_kept_is_left_alone(place: Path) -> None:
    (place / "model.run").write_text("mine")
    code, said = ended(start(place, "model"))
    assert code == 2
    assert said == [
        f"Error: {place / 'model.run'} is a file; a run is kept there.",
        "Move it away, or take another --out.",
    ]
    assert (place / "model.run").read_text() == "mine"


def test_a_second_run_into_the_same_folder_is_told_who_is_at_it(place: Path) -> None:
    first = start(place, "model", HELD=str(place / "mark"))
    wait_for(place / "mark", first)
    code, said = ended(start(place, "model"))
    assert code == 2
    assert said[0].startswith(f"Error: {place / 'model.run'} is in use: by process {first.pid} on ")
    assert said[1:] == ["Wait until that run has ended, or take another --out."]
    first.terminate()
    assert ended(first)[0] == 143
