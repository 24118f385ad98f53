"""Kills real `finetuner fit` processes at random instants and counts the bytes in which their ends differ.

    python -m benchmarks.kills --random 200 --writing 50

A run over made-up vectors (an MLP, a loss with parameters, evaluations in the middle) is done once without a
kill. Then the same command is started again and again: each process is killed (`kill -9`) after a random time, or while
the write of a checkpoint is going on, which is told by the folder that it is written into; whenever one comes to its
end, its model is compared with the first, byte by byte, and another run begins, until so many kills were done.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def command(folder: Path, out: Path) -> list[str]:
    """The run: 100 steps, a checkpoint after every second."""
    given = "--loss siglip --epochs 2 --batch-size 16 --checkpoint-every 2 --eval-every 20 --device cpu --quiet"
    start = [sys.executable, "-c", "from finetuner_core.cli import main; main()"]
    return [*start, "fit", "mlp", str(folder / "data.npz"), "--out", str(out), *given.split()]


def write_data(folder: Path) -> None:
    """Vectors of ten classes."""
    drawn = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    vectors = drawn.normal(size=(10, 16))[labels] + drawn.normal(size=(1000, 16))
    np.savez(folder / "data.npz", vectors=vectors.astype(np.float32), labels=labels)


def differing_bytes(first: Path, second: Path) -> int:
    """How many bytes of the weights, and of the metrics and the history but for times, are not the same."""
    count = 0
    for file in sorted(first.rglob("*")):
        if file.is_dir() or file.name in ("log.txt", "run.json"):
            continue
        other = second / file.relative_to(first)
        a, b = (_content(each) if each.exists() else b"" for each in (file, other))
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


def kill_while_writing(process: subprocess.Popen[bytes], checkpoints: Path, drawn: random.Random) -> bool:
    """Kills a process in the midst of the write of a checkpoint; whether it lived so long."""
    wanted = drawn.randint(1, 20)
    while process.poll() is None:
        if any(checkpoints.glob(".*.new")):
            wanted -= 1
            if wanted <= 0:
                process.kill()
                process.wait()
                return True
        time.sleep(0.0002)
    return False


def kill_at_random(process: subprocess.Popen[bytes], longest: float, drawn: random.Random) -> bool:
    """Kills a process after a random time; whether it lived so long."""
    try:
        process.wait(drawn.uniform(0, longest))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def main() -> None:
    """Kills, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=200, help="kills at random instants")
    parser.add_argument("--writing", type=int, default=50, help="kills within the write of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    drawn = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder)
        started = time.monotonic()
        subprocess.run(command(folder, folder / "whole"), check=True)
        longest = time.monotonic() - started
        left = ["random"] * given.random + ["writing"] * given.writing
        drawn.shuffle(left)
        kills = {"random": 0, "writing": 0}
        ends = failures = differing = processes = torn = 0
        out = folder / "killed"
        checkpoints = out.with_name("killed.run") / "checkpoints"
        while left or checkpoints.exists():
            kind = left[-1] if left else "none"
            process = subprocess.Popen(command(folder, out), stderr=subprocess.PIPE)
            processes += 1
            killed = False
            if kind == "writing":
                killed = kill_while_writing(process, checkpoints, drawn)
            elif kind == "random":
                killed = kill_at_random(process, longest, drawn)
            if killed:
                kills[left.pop()] += 1
                torn += any(checkpoints.glob(".*.new"))
                continue
            _, said = process.communicate()
            if process.returncode:
                failures += 1
                print(said.decode(), file=sys.stderr)
                break
            ends += 1
            differing += differing_bytes(folder / "whole", out)
            shutil.rmtree(out)
        print(
            json.dumps(
                {
                    "processes": processes,
                    "killed": kills,
                    "half-written checkpoints left by them": torn,
                    "failed to go on": failures,
                    "runs that came to their end": ends,
                    "differing bytes": differing,
                }
            )
        )


if __name__ == "__main__":
    main()
