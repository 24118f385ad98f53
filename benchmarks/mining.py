"""Hard negatives beside sentence-transformers: the same model in float32, the same pairs, the same rules.

    python benchmarks/mining.py MODEL_FOLDER PAIRS.csv [runs]

Needs sentence-transformers and datasets. The two alternate, each in a process of its own; seconds are of the CPU.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

NEGATIVES, TOP_K, MARGIN = 3, 50, 0.05


def ours(model: str, pairs: Path) -> int:
    """How many rows Finetuner mines."""
    import finetuner

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "mined.jsonl"
        settings = {"negatives": NEGATIVES, "top_k": TOP_K, "relative_margin": MARGIN}
        return finetuner.mine(model, pairs, out, batch_size=64, device="cpu", quiet=True, **settings).rows  # type: ignore[arg-type]


def theirs(model: str, pairs: Path) -> int:
    """How many rows sentence-transformers mines."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    with pairs.open(encoding="utf-8", newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    data = Dataset.from_dict({"anchor": [row[0] for row in rows], "positive": [row[1] for row in rows]})
    mined = mine_hard_negatives(
        data,
        SentenceTransformer(model, device="cpu"),
        num_negatives=NEGATIVES,
        range_max=TOP_K,
        relative_margin=MARGIN,
        output_format="n-tuple",
        batch_size=64,
        verbose=False,
    )
    return len(mined)


def main() -> None:
    """One table."""
    if sys.argv[1] in ("ours", "theirs"):
        rows = {"ours": ours, "theirs": theirs}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([rows, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
        return
    print("| run | who | rows | CPU-s | peak RSS MB |\n|---|---|---|---|---|")
    for run in range(int(sys.argv[3]) if len(sys.argv) > 3 else 3):
        for who in ("ours", "theirs"):
            command = [sys.executable, __file__, who, *sys.argv[1:3]]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows, seconds, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"| {run + 1} | {who} | {rows:,} | {seconds:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
