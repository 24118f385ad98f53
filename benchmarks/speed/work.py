"""What both sides of a comparison compute, handed to them as one file."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed.pairs import Pair


@dataclass(frozen=True)
class Work:
    """The same rows in the same batches for everyone.

    Args:
        model: the name or folder of the model.
        batch_size: rows in a step.
        steps: how many steps an epoch has: rows beyond them are left out.
        pairs: for what is trained on pairs or encoded.
        held_out: pairs that nobody trains on.
        pictures: paths of images, and
        labels: what each is of.
        max_length: tokens at which texts are cut; the model's own limit where `None`.
        epochs: how often the rows are gone through, where that is more than once.
        folder: where results may be written.
        device: what is computed on.
        threads: how many.
    """

    model: str
    batch_size: int
    steps: int
    folder: str
    device: str
    threads: int
    pairs: list[Pair]
    held_out: list[Pair]
    pictures: list[str]
    labels: list[str]
    max_length: int | None = None
    epochs: int = 1

    def write(self, path: Path) -> Path:
        """Writes it for `read`."""
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Work:
        """What `write` wrote."""
        found = json.loads(path.read_text("utf-8"))
        for name in ("pairs", "held_out"):
            found[name] = [Pair(*pair) for pair in found[name]]
        return cls(**found)

    def batches(self) -> list[list[int]]:
        """The rows of each step: one after the other."""
        return [list(range(step * self.batch_size, (step + 1) * self.batch_size)) for step in range(self.steps)]

    def rows(self) -> list[Pair]:
        """The pairs of all steps."""
        return self.pairs[: self.steps * self.batch_size]

    def texts(self) -> list[str]:
        """The texts of all pairs, anchors and positives by turns."""
        return [text for pair in self.rows() for text in pair]

    def shuffled(self, seed: int) -> Work:
        """The same with the pairs in another order, which follows from the seed."""
        pairs = list(self.rows())
        random.Random(seed).shuffle(pairs)
        return Work(**{**vars(self), "pairs": pairs})
