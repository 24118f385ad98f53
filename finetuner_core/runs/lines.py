"""What the `metrics.jsonl` of a run tells, read line by line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_LONGEST = 1 << 20
"""Bytes of a line; those of many metrics have a thousand."""


@dataclass
class Lines:
    """What the lines of a run add up to.

    Args:
        steps: how many were done.
        epoch: of the last of them.
        steps_of_epoch: how many an epoch has, once one is over.
        seconds: that the steps took.
        measured: metrics of each data set by its name, for `before`, `step` (the newest) and `after`.
        checked: the step of the newest evaluation.
        damaged: how many lines could not be read; a last one that was cut short is none of them.
    """

    steps: int = 0
    epoch: int = 0
    steps_of_epoch: int | None = None
    seconds: float = 0.0
    measured: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    checked: int | None = None
    damaged: int = 0
    _first: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Adds one.

        Raises:
            KeyError, TypeError, ValueError: if it is none that a run writes.
        """
        step = _whole(line["step"])
        if "evaluation" in line:
            when, name = str(line["evaluation"]), str(line["data"])
            metrics = {str(metric): value for metric, value in line["metrics"].items() if _is_number(value)}
            self.measured.setdefault(when, {})[name] = metrics
            self.checked = step
            return
        epoch, seconds = _whole(line["epoch"]), line["seconds"]
        if not _is_number(seconds):
            raise ValueError(seconds)
        if epoch == 1:
            self._first = step
        elif epoch > 1 and self._first:
            self.steps_of_epoch = self._first
        self.steps, self.epoch, self.seconds = step, epoch, self.seconds + seconds


def read_lines(file: Path) -> Lines:
    """All lines of a file, in memory that does not grow with it.

    Raises:
        OSError: if it cannot be read.
    """
    lines = Lines()
    with file.open("rb") as stream:
        for text in _whole_lines(stream):
            try:
                if len(text) > _LONGEST:
                    raise ValueError("too long")
                lines.add(json.loads(text))
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
                lines.damaged += 1
    return lines


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Each line that ends; of one that is too long its beginning. The last may be just being written."""
    while text := stream.readline(_LONGEST + 1):
        rest = text
        while not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST)
            if not rest:
                return
        yield text


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
