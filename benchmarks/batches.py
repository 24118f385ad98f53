"""Batches a second without duplicates, beside sentence-transformers' no-duplicates samplers.

    python benchmarks/batches.py [--rows 8000000] [--batch-size 64] [--rounds 3] [--limit 60]

Pairs of texts: a tenth of the rows repeat the anchor of another row, a twentieth the positive of another. Both
sides read them from one memory-mapped Arrow file. Each measurement is a process of its own, and they alternate. A
process stops within its epoch when the limit of seconds is over; what share it came to is printed. Starting (numbering
the items here, hashing them there) is counted by itself, and so is what an epoch takes until its first batch, which the
batches a second include. Seconds are of processor time, that of children included, since the machine may be busy with
other things. Memory is anonymous memory at its peak above that after the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

OURS, HASHED, PLAIN = "finetuner", "sentence-transformers hashed", "sentence-transformers"


def write(path: Path, rows: int) -> None:
    """Writes the pairs."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rng = np.random.default_rng(0)
    with pa.OSFile(str(path), "wb") as sink:
        schema = pa.schema([("anchor", pa.string()), ("positive", pa.string())])
        with pa.ipc.new_stream(sink, schema) as writer:
            for start in range(0, rows, 100_000):
                size = min(100_000, rows - start)
                columns = []
                for text, repeated in (("how do I get number ", 0.1), ("this is what is known of number ", 0.05)):
                    ids = np.arange(start, start + size)
                    again = rng.random(size) < repeated
                    ids[again] = rng.integers(0, rows, int(again.sum()))
                    columns.append(pc.binary_join_element_wise(text, pa.array(ids).cast(pa.string()), ""))
                writer.write_batch(pa.record_batch(columns, schema=schema))


def ours(path: Path, size: int) -> Callable[[], Callable[[], Iterator[list[int]]]]:
    """Imports what is needed; the result builds the batches, and the result of that begins an epoch."""
    import pyarrow as pa

    from finetuner_core.data.batches import PairBatches
    from finetuner_core.data.cells import ArrowCells
    from finetuner_core.data.dataset import Column, Dataset

    def build() -> Callable[[], Iterator[list[int]]]:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        columns = (Column(name, "text", ArrowCells(table[name])) for name in table.column_names)
        batches = PairBatches(Dataset(tuple(columns)), size, 0)
        return lambda: batches.epoch(1)

    return build


def theirs(path: Path, size: int, hashed: bool) -> Callable[[], Callable[[], Iterator[list[int]]]]:
    """The same for sentence-transformers."""
    import datasets
    import torch
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    datasets.disable_progress_bars()

    def build() -> Callable[[], Iterator[list[int]]]:
        sampler = NoDuplicatesBatchSampler(
            datasets.Dataset.from_file(str(path)),
            batch_size=size,
            drop_last=False,
            generator=torch.Generator(),
            seed=0,
            precompute_hashes=hashed,
        )
        sampler._build_hashes()
        return lambda: iter(sampler)

    return build


def seconds() -> float:
    """Processor time so far of this process and of its children that have ended."""
    return sum(os.times()[:4])


def anonymous() -> float:
    """Anonymous memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measure(who: str, path: Path, rows: int, size: int, limit: float) -> dict[str, float]:
    """One measurement in this process."""
    build = ours(path, size) if who == OURS else theirs(path, size, who == HASHED)
    base = peak = anonymous()
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = seconds()
    epoch = build()
    built = seconds()
    first, batches, items = 0.0, 0, 0
    for batch in epoch():
        now = seconds()
        first = first or now - built
        batches += 1
        items += len(batch)
        if now - built > limit:
            break
    took = seconds() - built
    over.set()
    watcher.join()
    return {
        "start": built - begin,
        "first": first,
        "rate": batches / took,
        "share": items / rows,
        "memory": peak - base,
    }


def main() -> None:
    """Measures and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds of an epoch after which it is broken off")
    parser.add_argument("--one", nargs=2, metavar=("WHO", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), args.rows, args.batch_size, args.limit)))
        return
    results: dict[str, list[dict[str, float]]] = {OURS: [], HASHED: [], PLAIN: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.arrow")
        write(path, args.rows)
        for number in range(args.rounds):
            for who, figures in results.items():
                # A cache of its own, or the second round would find the hashes of the first.
                cache = str(Path(folder, f"{number} {who}"))
                copy = path.with_name(f"{number}.arrow")
                copy.unlink(missing_ok=True)
                copy.hardlink_to(path)
                same = [f"--{name}={getattr(args, name.replace('-', '_'))}" for name in ("rows", "batch-size", "limit")]
                done = subprocess.run(
                    [sys.executable, __file__, *same, "--one", who, str(copy)],
                    env={**os.environ, "HF_DATASETS_CACHE": cache, "OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                )
                figures.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{who}: {figures[-1]}", file=sys.stderr)
                for left in (*Path(folder).glob("cache-*"), *Path(folder).glob("tmp*")):
                    left.unlink()
    print(f"{args.rows:,} pairs in batches of {args.batch_size}, medians of {args.rounds}")
    print(f"{'':30}{'batches/s':>12}{'start, s':>10}{'first, s':>10}{'MB':>8}{'epoch':>8}")
    for who, figures in results.items():
        rate, start, first, memory, share = (
            statistics.median(each[key] for each in figures) for key in ("rate", "start", "first", "memory", "share")
        )
        print(f"{who:30}{rate:12,.0f}{start:10.1f}{first:10.2f}{memory:8,.0f}{share:8.1%}")


if __name__ == "__main__":
    main()
