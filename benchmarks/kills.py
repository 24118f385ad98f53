"""Kills real runs of `finetuner fit` at random instants and counts the bytes in which their ends differ.

    python -m benchmarks.kills --random 200 --writing 50

A run over made-up vectors (an MLP, a loss with parameters, evaluations in the middle) is done once without a kill.
Then the same command is started again and again, each time in a process of its own: forked from this one, which has
imported everything and computed nothing, so that the time goes into runs. Each is killed (`kill -9`) after a random
time, or within the write of a checkpoint, at a random call to the system (`open`, `write`, `fsync`, `rename`, ...).
Whenever one comes to its end, its model is compared with the first, byte by byte, and another run begins, until so many
kills were done.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from finetuner_core.cli import cli
from finetuner_core.training.checkpoints import Checkpoints

STEPS, EVERY = 62, 2
WRITES = STEPS // EVERY


def command(folder: Path, out: Path) -> list[str]:
    """The run: 62 steps in two epochs, a checkpoint after every second."""
    given = f"--loss siglip --epochs 2 --batch-size 16 --checkpoint-every {EVERY} --eval-every 20 --device cpu --quiet"
    return ["fit", "mlp", str(folder / "data.npz"), "--out", str(out), *given.split()]


def write_data(folder: Path) -> None:
    """Vectors of ten classes."""
    drawn = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 62)
    vectors = drawn.normal(size=(10, 16))[labels] + drawn.normal(size=(620, 16))
    np.savez(folder / "data.npz", vectors=vectors.astype(np.float32), labels=labels)


def start(given: list[str], said: Path, before: Callable[[], None] = lambda: None) -> int:
    """Starts a command in a forked process; its id.

    Args:
        given: the command line, without the program.
        said: a file for what it prints.
        before: done there first.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            before()
            cli.main(given)
        except SystemExit as done:
            code = int(done.code or 0)
        finally:
            os._exit(code)
    return process


def end_of(process: int) -> int:
    """Waits; its exit code, or less a signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_at(process: int, seconds: float) -> int:
    """Kills a process after some time, unless it has ended; its exit code."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.0005)
    else:
        os.kill(process, signal.SIGKILL)
    return end_of(process)


def calls_to_the_system(at: Callable[[], None]) -> Callable[[FrameType, str, Any], None]:
    """What `sys.setprofile` takes, so that `at` is called around each call to the system that changes files."""
    names = {"open", "write", "flush", "close", "fsync", "mkdir", "link", "rename", "replace", "unlink", "rmdir"}

    def seen(frame: FrameType, event: str, called: Any) -> None:
        if event in ("c_call", "c_return") and getattr(called, "__name__", None) in names:
            at()

    return seen


def watch_writes(each: Callable[[int], None]) -> None:
    """Has `each` called within every write of a checkpoint, at each call to the system, with the write's number."""
    write = Checkpoints.write
    number = 0

    def watched(self: Checkpoints, *given: Any) -> None:
        nonlocal number
        number += 1
        sys.setprofile(calls_to_the_system(lambda: each(number)))
        try:
            write(self, *given)
        finally:
            sys.setprofile(None)

    Checkpoints.write = watched  # type: ignore[method-assign]


def die_within(write: int, call: int) -> None:
    """Has this process kill itself in a later write of a checkpoint, at one of its calls to the system."""
    left = call

    def counted(number: int) -> None:
        nonlocal left
        if number == write:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    watch_writes(counted)


def count_calls(file: Path) -> None:
    """Keeps in a file how many calls to the system the third write of a checkpoint has, one of the usual kind."""
    calls = 0

    def counted(number: int) -> None:
        nonlocal calls
        calls += number == 3
        if number == 4:
            file.write_text(str(calls))

    watch_writes(counted)


def note_modules(file: Path) -> None:
    """Keeps in a file the names of all modules that a run has imported when its last checkpoint is written."""
    watch_writes(lambda number: None if number < WRITES else file.write_text("\n".join(sys.modules)))


def differing_bytes(first: Path, second: Path) -> int:
    """How many bytes of the weights, and of the metrics and the history but for times, are not the same."""
    count = 0
    names = {file.relative_to(own) for own in (first, second) for file in own.rglob("*") if file.is_file()}
    for name in sorted(names - {Path("run/log.txt"), Path("run/run.json")}):
        a, b = (_content(own / name) if (own / name).exists() else b"" for own in (first, second))
        count += abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))
    return count


def _content(file: Path) -> bytes:
    if file.suffix == ".jsonl":
        return json.dumps([_timeless(json.loads(line)) for line in file.read_text().splitlines()]).encode()
    return json.dumps(_timeless(json.loads(file.read_text()))).encode() if file.suffix == ".json" else file.read_bytes()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("seconds", "items_per_second")}
    return [_timeless(own) for own in value] if isinstance(value, list) else value


def survive(folder: Path, kills: dict[str, int], seed: int) -> dict[str, object]:
    """Kills, and goes on, until all kills are done and the last run has come to its end.

    Args:
        folder: for the data and the runs.
        kills: how many of each kind: `random`, `writing`.
        seed: of when.

    Returns:
        What came of it.
    """
    drawn = random.Random(seed)
    write_data(folder)
    said, whole, out = folder / "said.txt", folder / "whole", folder / "killed"
    calls_file, modules = folder / "calls", folder / "modules"
    if end_of(start(command(folder, folder / "first"), said, lambda: note_modules(modules))):
        raise SystemExit(said.read_text())
    for name in modules.read_text().split():
        with suppress(Exception):  # some are there only while others are imported
            importlib.import_module(name)
    began = time.monotonic()
    if end_of(start(command(folder, whole), said, lambda: count_calls(calls_file))):
        raise SystemExit(said.read_text())
    longest = time.monotonic() - began
    calls = int(calls_file.read_text())
    left = [kind for kind, count in kills.items() for _ in range(count)]
    drawn.shuffle(left)
    done = dict.fromkeys(kills, 0)
    run = folder / "killed.run"
    lives = ends = differing = torn = 0
    failed: list[str] = []
    while left or run.exists():
        kind = left[-1] if left else None
        lives += 1
        if kind == "writing":
            write, call = drawn.randint(1, WRITES // 4), drawn.randint(1, calls)
            code = end_of(start(command(folder, out), said, lambda w=write, c=call: die_within(w, c)))  # type: ignore[misc]
        elif kind == "random":
            code = kill_at(start(command(folder, out), said), drawn.uniform(0, longest))
        else:
            code = end_of(start(command(folder, out), said))
        if code == -signal.SIGKILL:
            done[left.pop()] += 1
            torn += any((run / "checkpoints").glob(".*.new"))
            continue
        if code:
            failed.append(said.read_text())
            shutil.rmtree(run, ignore_errors=True)
        else:
            ends += 1
            differing += differing_bytes(whole, out)
        shutil.rmtree(out, ignore_errors=True)
    return {
        "processes": lives,
        "killed": done,
        "kills after which a half-written checkpoint lay there": torn,
        "failed to go on": failed,
        "runs that came to their end": ends,
        "differing bytes": differing,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Kills, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=200, help="kills at random instants")
    parser.add_argument("--writing", type=int, default=50, help="kills within the write of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # a forked process hangs where threads were in the midst of something
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(survive(Path(scratch), {"random": given.random, "writing": given.writing}, given.seed)))


if __name__ == "__main__":
    main()
