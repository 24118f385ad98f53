"""Time and memory of search evaluation, beside sentence-transformers' InformationRetrievalEvaluator.

    python benchmarks/evaluation.py [--queries 2000] [--documents 60000] [--dim 64] [--relevant 3] [--rounds 5]

Both sides are given the same vectors, so that nothing is encoded, and what they come to is compared. Ours stay in the
file that they are mapped from; theirs are tensors. Each measurement is a process of its own, and the two alternate.
Memory is anonymous memory at its peak above that after the imports and after the vectors were read. With `--alone` ours
is measured without the other, for sizes that it cannot do.
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
import time
from collections.abc import Callable
from pathlib import Path

OURS, THEIRS = "finetuner", "sentence-transformers"
SAME = {
    "ndcg@10": "ndcg@10",
    "recall@10": "recall@10",
    "hit_rate@1": "accuracy@1",
    "mrr@10": "mrr@10",
}


def write(folder: Path, queries: int, documents: int, dim: int, relevant: int) -> None:
    """Writes vectors of documents, and of queries that lie somewhere near their relevant ones."""
    import numpy as np

    rng = np.random.default_rng(0)
    corpus = np.lib.format.open_memmap(folder / "corpus.npy", "w+", np.float32, (documents, dim))
    for start in range(0, documents, 100_000):
        block = rng.normal(size=(min(100_000, documents - start), dim))
        corpus[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    found = np.stack([rng.choice(documents, relevant, replace=False) for _ in range(queries)])
    asked = corpus[found].sum(axis=1) + rng.normal(size=(queries, dim)) / dim**0.5
    np.save(folder / "queries.npy", (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32))
    np.save(folder / "relevant.npy", found)


def ours(folder: Path) -> Callable[[], dict[str, float]]:
    """Reads what is needed; the result evaluates."""
    import numpy as np

    from finetuner_core import Column
    from finetuner_core.data.search_set import Judgements, SearchSet
    from finetuner_core.evaluation.evaluate import evaluate_dataset

    class Encoded:
        """A model of vectors that are embeddings already."""

        def __init__(self, dim: int) -> None:
            self.output_dim = dim

        def encode(self, items: np.ndarray, **_: object) -> np.ndarray:
            """The vectors themselves."""
            return items

    queries, corpus = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("queries", "corpus"))
    relevant = np.load(folder / "relevant.npy")
    asking = np.repeat(np.arange(len(relevant)), relevant.shape[1])
    judgements = Judgements.of_triples(asking, relevant.ravel(), np.ones(relevant.size, np.int64), len(relevant))
    data = SearchSet(
        Column("query", "vector", queries),
        Column("document", "vector", corpus),
        judgements,
        corpus_ids=[f"d{row}" for row in range(len(corpus))],
    )
    model = Encoded(corpus.shape[1])
    return lambda: evaluate_dataset(model, data, metrics=(*SAME, "mrr", "map"))  # type: ignore[arg-type]


def theirs(folder: Path) -> Callable[[], dict[str, float]]:
    """The same for sentence-transformers."""
    import numpy as np
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    queries, corpus = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("queries", "corpus"))
    relevant = np.load(folder / "relevant.npy")

    class Encoded(InformationRetrievalEvaluator):
        """Queries that are embeddings already."""

        def embed_inputs(self, *_: object, **__: object) -> torch.Tensor:  # type: ignore[override]
            """The vectors themselves."""
            return queries

    evaluator = Encoded(
        {f"q{row}": "" for row in range(len(queries))},
        {f"d{row}": "" for row in range(len(corpus))},
        {f"q{row}": {f"d{document}" for document in found} for row, found in enumerate(relevant.tolist())},
        score_functions={"cosine": cos_sim},
        show_progress_bar=False,
    )

    def run() -> dict[str, float]:
        found: dict[str, dict[int, float]] = evaluator.compute_all_metrics(
            None,  # type: ignore[arg-type]
            corpus_embeddings=corpus,
        )["cosine"]  # type: ignore[assignment]
        return {name.replace("@k", f"@{k}"): value for name, values in found.items() for k, value in values.items()}

    return run


def anonymous() -> float:
    """Anonymous memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measure(who: str, folder: Path) -> dict[str, float]:
    """One measurement in this process."""
    run = ours(folder) if who == OURS else theirs(folder)
    base = peak = anonymous()
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    values = run()
    seconds = time.perf_counter() - begin
    over.set()
    watcher.join()
    return {"seconds": seconds, "MB": peak - base} | {
        name: float(values[name if who == OURS else theirs_name]) for name, theirs_name in SAME.items()
    }


def main() -> None:
    """Measures and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--relevant", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]))))
        return
    results: dict[str, list[dict[str, float]]] = {OURS: []} if args.alone else {OURS: [], THEIRS: []}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), args.queries, args.documents, args.dim, args.relevant)
        for _ in range(args.rounds):
            for who, figures in results.items():
                done = subprocess.run(
                    [sys.executable, __file__, "--one", who, name],
                    env={**os.environ, "OMP_NUM_THREADS": str(args.threads)},
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                )
                figures.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{who}: {figures[-1]}", file=sys.stderr)
    print(
        f"{args.queries:,} queries with {args.relevant} relevant each, {args.documents:,} documents, {args.dim} wide, "
        f"{args.threads} thread(s), medians of {args.rounds}"
    )
    columns = ("seconds", "MB", *SAME)
    print(f"{'':24}" + "".join(f"{column:>12}" for column in columns))
    for who, figures in results.items():
        values = (statistics.median(each[column] for each in figures) for column in columns)
        print(f"{who:24}" + "".join(f"{value:12.4f}" for value in values))


if __name__ == "__main__":
    main()
