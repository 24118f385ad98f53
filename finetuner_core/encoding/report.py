"""What a person sees while items are encoded, and what came of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetuner_core.encoding.quantize import DType


@dataclass(frozen=True)
class EncodingResult:
    """Vectors that were written.

    Args:
        path: their file.
        rows: how many there are.
        width: how many numbers each has; packed into bits they are an eighth of that in bytes.
        dtype: how each number is written.
        cut: how many texts were longer than the model reads.
        ranges: the file with the ranges of int8 vectors; `None` for others.
    """

    path: Path
    rows: int
    width: int
    dtype: DType
    cut: int
    ranges: Path | None = None


class Progress:
    """Lines on stderr, and a bar where a terminal shows it.

    Args:
        quiet: whether to show nothing at all.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def line(self, text: str) -> None:
        """One line that says one thing."""
        if not self.quiet:
            print(text, file=sys.stderr)

    @contextlib.contextmanager
    def bar(self, total: int, done: int) -> Iterator[Callable[[int], object]]:
        """A bar for all items, of which some may be done; what it gives is told of every step."""
        if self.quiet or done == total:
            yield lambda count: None
            return
        from tqdm import tqdm

        # disable=None: no bar where the output is a file, in which it would fill thousands of lines.
        with tqdm(desc="Encoding", total=total, initial=done, unit="row", leave=False, disable=None) as bar:
            yield bar.update

    def result(self, result: EncodingResult) -> None:
        """What came of it."""
        packed = "" if result.dtype == "float32" else f" as {result.dtype}"
        ranges = "" if result.ranges is None else f", their ranges to {result.ranges.name}"
        self.line(f"{result.rows:,} vectors of width {result.width} written{packed} to {result.path}{ranges}")
