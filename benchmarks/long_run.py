"""Trains a small model for many steps and shows that nothing grows: memory, open files, the time of a step.

    python -m benchmarks.long_run --steps 50000

The run is a real `finetuner fit` with a folder, checkpoints and threads that prepare ahead. Ten times over it, the
resident memory, the open files, the threads and the median time of a step since the last time are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from finetuner_core.training.fit import fit
from finetuner_core.training.progress import Progress

ITEMS, BATCH = 640, 64


def resident() -> float:
    """Anonymous resident memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    steps = parser.parse_args().steps
    times: list[float] = []
    done, last = 0, time.perf_counter()

    def step(self: Progress, loss: float, items: int) -> None:
        nonlocal done, last
        now = time.perf_counter()
        times.append(now - last)
        done, last = done + 1, now
        if done % (steps // 10) == 0:
            files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
            print(
                f"{done:>7,} steps  {resident():7.1f} MB  {files} files  {threads} threads  "
                f"{1000 * statistics.median(times):.2f} ms a step",
                flush=True,
            )
            times.clear()

    Progress.step = step  # type: ignore[method-assign]
    drawn = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), ITEMS // 10)
    vectors = drawn.normal(size=(10, 16))[labels] + drawn.normal(size=(ITEMS, 16))
    with tempfile.TemporaryDirectory(prefix="finetuner-long-") as folder:
        data = Path(folder, "data.npz")
        np.savez(data, vectors=vectors.astype(np.float32), labels=labels)
        given = {"model_options": {"hidden_sizes": "32"}, "batch_size": BATCH, "val_split": 0.1, "quiet": True}
        per_epoch = ITEMS * 0.9 / BATCH
        fit("mlp", data, out=Path(folder, "model"), epochs=round(steps / per_epoch), checkpoint_every="1m", **given)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
