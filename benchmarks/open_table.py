"""A table of a million rows beside Hugging Face's datasets: seconds of the CPU, rows a second and anonymous memory.

    python benchmarks/open_table.py [rows] [runs]

Needs datasets, and Linux for /proc. The two alternate on the same CSV, each in a process of its own and theirs with an
empty cache. Memory is what the process has of its own once the table is open, above what it had once its library was
imported, and the most it had in between, looked at every ten milliseconds: pages of mapped files are the system's to
drop and are not counted. Each also reads 1,000 batches of 64 rows at random.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCHES, SIZE = 1000, 64

Read = Callable[[list[int]], object]


def ours(path: Path, cache: str) -> tuple[int, Read]:
    """Opens the table with Finetuner."""
    from finetuner_core.data.tables import read_table

    table = read_table(path)
    columns = list(table.columns.values())
    return len(table), lambda rows: [column.take(rows) for column in columns]  # type: ignore[union-attr]


def theirs(path: Path, cache: str) -> tuple[int, Read]:
    """Opens the table with datasets."""
    from datasets import load_dataset

    data = load_dataset("csv", data_files=str(path), cache_dir=cache, split="train")
    return len(data), lambda rows: data[rows]


def measure(who: str, path: Path, cache: str) -> list[float]:
    """Rows, CPU-s to open, seconds to open, MB kept, MB at most, and batches a second."""
    if who == "ours":
        import finetuner_core.data.formats.delimited  # noqa: F401
    else:
        import datasets  # noqa: F401
    before = most = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, wall = time.process_time(), time.perf_counter()
    count, read = {"ours": ours, "theirs": theirs}[who](path, cache)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    done.set()
    watcher.join()
    kept, most = anonymous(), max(most, anonymous())
    draws = np.random.default_rng(0).integers(count, size=(BATCHES, SIZE)).tolist()
    began = time.process_time()
    for rows in draws:
        read(rows)
    return [count, cpu, wall, kept - before, most - before, BATCHES / (time.process_time() - began)]


def anonymous() -> float:
    """Memory of this process that belongs to no file, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def write(path: Path, rows: int) -> None:
    """Pairs of texts, about 235 bytes a row, a tenth of them with quotes, commas and line ends within them."""
    draw = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["anchor", "positive"])
        for row in range(rows):
            question, answer = (" ".join(words[draw.integers(5000, size=size)]) for size in (7, 19))
            writer.writerow([question, f'{answer}, "so"\nit says' if row % 10 == 0 else answer])


def main() -> None:
    """One table."""
    if sys.argv[1:2] and sys.argv[1] in ("ours", "theirs"):
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        write(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB\n")
        print("| run | who | rows | CPU-s | s | rows / CPU-s | MB kept | MB at most | batches / CPU-s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for run in range(runs):
            for who in ("ours", "theirs"):
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    command = [sys.executable, __file__, who, str(path), cache]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                count, cpu, wall, kept, most, batches = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {run + 1} | {who} | {count:,.0f} | {cpu:.2f} | {wall:.2f} | {count / cpu:,.0f} "
                    f"| {kept:,.0f} | {most:,.0f} | {batches:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
