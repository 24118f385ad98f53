"""What a person sees while negatives are mined, and what came of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetuner_core.data.dataset import PLURAL
from finetuner_core.mining.task import Task
from finetuner_core.mining.work import Work
from finetuner_core.values import printable

_REASONS = {
    "known": "known to belong to the query",
    "same": "the same as the query",
    "skip_top": "among the first ranks",
    "relative_margin": "within the relative margin of the positive",
    "absolute_margin": "within the absolute margin",
    "min_score": "below min_score",
    "max_score": "above max_score",
}


@dataclass(frozen=True)
class MiningResult:
    """What was mined.

    Args:
        path: the file that was written.
        replaced: whether there was one before.
        queries: how many different queries there were.
        documents: how many different documents were searched.
        rows: how many rows were written.
        negatives: how many negatives they hold together.
        short: how many rows were left out because too few negatives were left.
        excluded: for each rule how many documents it has excluded: `known` and `same` of all, the others of the first
            `top_k` of each row.
        positive_score: the mean score of the positives that were written.
        negative_score: the mean score of the negatives.
    """

    path: Path
    replaced: bool
    queries: int
    documents: int
    rows: int
    negatives: int
    short: int
    excluded: Mapping[str, int]
    positive_score: float
    negative_score: float


def reasons(excluded: Mapping[str, int]) -> str:
    """Why documents were excluded, in words."""
    return ", ".join(f"{count:,} {_REASONS[rule]}" for rule, count in excluded.items() if count) or "none excluded"


class Progress:
    """Lines on stderr, and a bar for each stage where a terminal shows it.

    Args:
        quiet: whether to show nothing at all.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def line(self, label: str, text: str) -> None:
        """One line that says one thing."""
        if not self.quiet:
            print(printable(f"{label:<9} {text}"), file=sys.stderr)

    def task(self, task: Task, skipped: int) -> None:
        """What was recognised in the data."""
        documents = f"{len(task.documents):,} different {PLURAL[task.documents.modality]}"
        self.line("Data", f"{len(task.queries):,} different queries, {len(task.rows[0]):,} rows, {documents} to search")
        left_out = {**task.left_out, "rows that cannot be used": skipped}
        if any(left_out.values()):
            self.line("Left out", ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count))

    def work(self, work: Work) -> None:
        """Whether a run that was stopped goes on."""
        if work.goes_on:
            self.line("Going on", f"with what is in {work.folder}")
        elif work.changed:
            self.line("Anew", f"{' and '.join(work.changed)} changed since the run that left {work.folder}")

    @contextlib.contextmanager
    def bar(self, stage: str, total: int, done: int) -> Iterator[Callable[[int], object]]:
        """A bar for a stage, of which a part may be done; what it gives is told of every step."""
        if self.quiet or done == total:
            yield lambda count: None
            return
        from tqdm import tqdm

        # disable=None: no bar where the output is a file, in which it would fill thousands of lines.
        with tqdm(desc=stage, total=total, initial=done, leave=False, disable=None) as bar:
            yield bar.update

    def result(self, result: MiningResult) -> None:
        """What came of it."""
        self.line("Excluded", reasons(result.excluded))
        if result.short:
            self.line(
                "Short",
                f"{result.short:,} rows had too few negatives left and were not written "
                "(look at more ranks with top_k, or loosen the margins)",
            )
        self.line("Scores", f"positives {result.positive_score:.3f}, negatives {result.negative_score:.3f} on average")
        replaced = ", which replaces the one before" if result.replaced else ""
        self.line("Written", f"{result.rows:,} rows with {result.negatives:,} negatives to {result.path}{replaced}")
