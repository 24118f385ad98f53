"""What an evaluation found: the numbers, and what each query contributes to them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetuner_core.data.dataset import Column
from finetuner_core.errors import FolderError, OptionError
from finetuner_core.evaluation.measures import Difference, Measure
from finetuner_core.evaluation.resampling import Interval, bootstrap, sign_flip
from finetuner_core.values import near, quote

_AT_A_TIME = 4096

# Also as East Asian keyboards write the four signs.
_FORMULA = re.compile(r"[=+\-@\t\n＝＋－＠]")


class Evaluation(dict[str, float]):
    """Numbers by name, such as `map`. Those of parts have the part before the name: `image-to-text map`.

    Args:
        measures: by name what is measured over the rows: queries, or pairs with a score.
        ids: an id for each row.
        queries: what asks, a row each; a file holds it where it is a text or stands in a file itself.
        left_out: how many rows there are beyond these, for which there is nothing to find.
        unit: what a row is, for people, in the plural.
        parts: by name what was measured besides: the other direction, or shorter vectors.
    """

    def __init__(
        self,
        measures: Mapping[str, Measure],
        ids: Sequence[str],
        *,
        queries: Column | None = None,
        left_out: int = 0,
        unit: str = "queries",
        parts: Mapping[str, Evaluation] | None = None,
    ) -> None:
        self.query_ids, self.queries, self.left_out, self.unit = list(ids), queries, left_out, unit
        self.parts = dict(parts or {})
        self._own = dict(measures)
        nested = {f"{part} {name}": own for part, each in self.parts.items() for name, own in each.measures.items()}
        self.measures: dict[str, Measure] = self._own | nested
        super().__init__({name: float(measure.rows.mean()) for name, measure in self.measures.items()})

    def with_parts(self, parts: Mapping[str, Evaluation]) -> Evaluation:
        """The same with more parts."""
        return Evaluation(
            self._own,
            self.query_ids,
            queries=self.queries,
            left_out=self.left_out,
            unit=self.unit,
            parts=self.parts | dict(parts),
        )

    @property
    def per_query(self) -> dict[str, np.ndarray]:
        """For each name what every query contributes, float64 (Q,), in the order of `query_ids`: of the whole the mean.

        For the names of a part the order is that of the part's `query_ids`.
        """
        return {name: measure.rows for name, measure in self.measures.items()}

    def interval(self, name: str) -> Interval:
        """The 95% bootstrap interval of a number: how far it would move with other queries of the same kind.

        Raises:
            OptionError: if there is no such number.
        """
        if name not in self.measures:
            raise OptionError(f"{quote(name)} was not measured.{near(name, self)}\nThere are {', '.join(self)}.")
        return self._intervals[name]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Those of all numbers."""
        return self._intervals

    @cached_property
    def _intervals(self) -> dict[str, Interval]:
        return bootstrap(self.measures)

    def write(self, path: str | Path) -> Path:
        """Writes a row for each query: its id, what it is where that is a text or a file, and its value of each metric.

        In a `.csv`, which spreadsheets open, a text that these would compute (`=...`, `+...`, `-...`, `@...`) gets an
        apostrophe before it (https://owasp.org/www-community/attacks/CSV_Injection); a `.jsonl` has it as it is.

        With parts, whose rows follow, the first column says which part a row is of.

        Args:
            path: `.csv` or `.jsonl`; a file that is there is replaced.

        Raises:
            FolderError: if it ends in something else, or cannot be written.
        """
        file = Path(path).expanduser().absolute()
        check_writable(file)
        scratch = file.with_name(f".{file.name}")
        try:
            with scratch.open("w", encoding="utf-8", newline="") as stream:
                if file.suffix == ".csv":
                    header = dict.fromkeys(name for row in self._rows() for name in row) if self.parts else None
                    rows = map(_no_formulas, self._rows())
                    first = next(rows)
                    writer = csv.DictWriter(stream, list(header or first), lineterminator="\n")
                    writer.writeheader()
                    writer.writerow(first)
                    writer.writerows(rows)
                else:
                    stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows())
            scratch.replace(file)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise FolderError(f"{path} cannot be written: {error.strerror or error}.") from None
        return file

    def _rows(self, part: str = "") -> Iterator[dict[str, object]]:
        named = bool(self.parts or part)
        for start in range(0, len(self.query_ids), _AT_A_TIME):
            rows = range(start, min(start + _AT_A_TIME, len(self.query_ids)))
            items = [None] * len(rows) if self.queries is None else self.queries.take(rows)
            for row, item in zip(rows, items, strict=True):
                yield (
                    ({"part": part} if named else {})
                    | {"id": self.query_ids[row]}
                    | ({"query": str(item)} if isinstance(item, str | Path) else {})
                    | {name: float(measure.rows[row]) for name, measure in self._own.items()}
                )
        for name, each in self.parts.items():
            yield from each._rows(f"{part} {name}".strip())


def _no_formulas(row: Mapping[str, object]) -> dict[str, object]:
    """A row in which no text is a formula to a spreadsheet; numbers, which are ours, may be below zero."""
    return {name: _no_formula(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def _no_formula(cell: str) -> str:
    # A return ends a row where it is not quoted, which Python does not do before a newline is what ends it.
    text = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(text) else text


class Gain(NamedTuple):
    """One number before and after.

    Args:
        before: it before.
        after: it after.
        interval: the 95% bootstrap interval of the difference, over pairs of what the same query contributes.
        p: the p-value of the paired randomisation test: how often chance alone makes a difference as large.
    """

    before: float
    after: float
    interval: Interval
    p: float

    @property
    def gain(self) -> float:
        """After less before."""
        return self.after - self.before


def compare(before: Evaluation, after: Evaluation) -> dict[str, Gain]:
    """What was gained between two evaluations of the same queries, by the names that both have.

    Raises:
        OptionError: if they are not of the same queries.
    """
    _check_same(before, after)
    gains = {name: Difference(after.measures[name], own) for name, own in before.measures.items() if name in after}
    intervals = bootstrap(gains)
    p: dict[str, float] = {}
    for rows in {len(gain.rows) for gain in gains.values()}:
        names = [name for name, gain in gains.items() if len(gain.rows) == rows]
        p.update(zip(names, sign_flip(np.stack([gains[name].rows for name in names])).tolist(), strict=True))
    return {name: Gain(before[name], after[name], intervals[name], p[name]) for name in gains}


def check_writable(path: str | Path) -> None:
    """Whether `write` can write such a file.

    Raises:
        FolderError: if not.
    """
    file = Path(path).expanduser().absolute()
    if file.suffix not in (".csv", ".jsonl"):
        raise FolderError(f"{path} ends in {quote(file.suffix)}; per-query results are written as .csv or .jsonl.")
    if file.is_dir():
        raise FolderError(f"{path} is a folder; per-query results are written into a file.")
    if not file.parent.is_dir():
        raise FolderError(f"{path} cannot be written: there is no folder {file.parent}.")


def _check_same(before: Evaluation, after: Evaluation) -> None:
    if before.query_ids != after.query_ids:
        raise OptionError(
            f"The two are not of the same queries in one order: {len(before.query_ids):,} before, "
            f"{len(after.query_ids):,} after.\nEvaluate both on the same data."
        )
    for name in before.parts.keys() & after.parts.keys():
        _check_same(before.parts[name], after.parts[name])
