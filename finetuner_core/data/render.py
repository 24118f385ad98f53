"""A report on data as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from tabulate import tabulate

from finetuner_core.data.report import ColumnReport, Lengths, PartReport, Report
from finetuner_core.values import printable, quote

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 100


def render(report: Report) -> str:
    """The report, in lines of about a hundred letters."""
    lines: list[str] = []
    for part in report.parts:
        lines += [*_part(part), ""]
    if report.evaluation is not None:
        lines += [f"Evaluation: {report.evaluation}", ""]
    for leakage in report.leakage.values():
        if leakage.documents:
            counts = f"{leakage.documents:,} of {leakage.of_documents:,} documents"
            lines += [f"Found in training and in evaluation: {counts}.", ""]
    several = len(report.parts) > 1
    problems = [(part.name if several else "", problem) for part in report.parts for problem in part.problems]
    problems += [("", problem) for problem in report.problems]
    for kind in ("warning", "error"):
        lines += [
            fill(f"{kind.capitalize()}: {f'{name}: ' if name else ''}{problem.text}", _WIDTH, subsequent_indent="  ")
            for name, problem in problems
            if problem.kind == kind
        ]
    lines.append("Training would fail." if report.fails else "Nothing stands in the way of training.")
    return printable("\n".join(lines))


def _part(part: PartReport) -> Iterator[str]:
    yield f"{part.name}: {part.summary}"
    if part.held_out is not None:
        yield f"  held out   {part.held_out}{f', {part.how}' if part.how else ''}"
    if part.skipped:
        yield f"  skipped    {part.skipped:,} rows that cannot be used"
    if part.unused:
        yield _cut(f"  not used   {', '.join(part.unused)}")
    if part.classes is not None:
        (largest, most), (smallest, least) = part.classes.largest, part.classes.smallest
        alone = f"; {part.classes.alone:,} on one item only" if part.classes.alone else ""
        yield _cut(
            f"  labels     {part.classes.number:,}: from {least:,} items ({smallest}) to {most:,} ({largest}){alone}"
        )
    if part.scores is not None:
        low, mean, high = part.scores
        yield f"  scores     {low:g} to {high:g}, {mean:.3g} on average"
    yield ""
    headers = ("column", "role", "different", "", "shortest", "median", "95%", "longest", "")
    rows = [row for column in part.columns for row in _rows(column)]
    table = tabulate(
        rows, headers, tablefmt="plain", colalign=("left", "left", "right", "left", *["right"] * 4, "left")
    )
    yield from (f"  {line}".rstrip() for line in table.splitlines())
    sampled = _sampled(part)
    if sampled:
        yield f"  (measured on rows spread evenly: {', '.join(sampled)} of {part.rows:,})"
    names = [*part.examples[0]]
    width = min(16, max(map(len, names)))
    for example in part.examples:
        yield ""
        for name, value in example.items():
            yield _cut(f"  {name[:width]:<{width}}  {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"{number:g}" for number in value)
    return quote(value)


def _rows(column: ColumnReport) -> Iterator[tuple[str, ...]]:
    own = (column.header, column.role, f"{column.different:,}")
    if column.lengths is None:
        yield (*own, f"{column.width} numbers", "", "", "", "", "")
        return
    yield (*own, *_measures(column.lengths))
    if column.tokens is not None:
        yield ("", "", "", *_measures(column.tokens))


def _measures(lengths: Lengths) -> tuple[str, ...]:
    numbers = (lengths.shortest, lengths.median, lengths.most, lengths.longest)
    cut = f" {lengths.cut:,} of {lengths.measured:,} are cut" if lengths.cut else ""
    return (lengths.unit, *(f"{number:,}" for number in numbers), f"{_bars(lengths.counts)}{cut}")


def _bars(counts: list[int]) -> str:
    """How many there are of each length, the most of which is the highest bar; nothing leaves a gap."""
    top = max(counts)
    return "".join(_BARS[round((len(_BARS) - 1) * count / top)] if count else " " for count in counts).rstrip()


def _sampled(part: PartReport) -> list[str]:
    """The units of what was measured on some rows only, with how many."""
    measured = [own for column in part.columns for own in (column.lengths, column.tokens) if own is not None]
    return list(dict.fromkeys(f"{own.unit} {own.measured:,}" for own in measured if own.measured < part.rows))


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."
