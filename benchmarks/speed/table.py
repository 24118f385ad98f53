"""Tables in Markdown, and the page that they are pasted into."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.speed.figures import Spread


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["who", "s"], [["ours", "1.0"]]))
    | who | s |
    |---|---|
    | ours | 1.0 |
    """
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def short(number: float) -> str:
    """A number in three digits or so, the thousands told apart.

    >>> [short(number) for number in (0, 0.01234, 1.2345, 12.345, 123.45, 12345.6)]
    ['0', '0.0123', '1.23', '12.3', '123', '12,346']
    """
    size = abs(number)
    if size >= 100 or number == 0:
        return f"{number:,.0f}"
    return f"{number:.{1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4}f}"


def with_range(values: Spread) -> str:
    """A median with the least and the largest.

    >>> with_range(Spread(2.0, 1.0, 3.0))
    '2.00 (1.00–3.00)'
    """
    return f"{short(values.median)} ({short(values.low)}–{short(values.high)})"


def megabytes(size: float) -> str:
    """Bytes as megabytes of 2^20 bytes."""
    return f"{size / 2**20:,.0f}"


def fill(page: str, name: str, text: str) -> str:
    """A page with a row's results in their place.

    Args:
        page: Markdown with a pair of comments, `<!-- bench: NAME -->` and `<!-- end of NAME -->`.
        name: of the row.
        text: what is to stand between the two; what stood there before goes.

    Raises:
        ValueError: if the page has no such place.
    """
    start, end = f"<!-- bench: {name} -->", f"<!-- end of {name} -->"
    # A function, since a replacement text would have its backslashes read.
    filled, found = re.subn(
        f"{re.escape(start)}.*?{re.escape(end)}", lambda _: f"{start}\n{text.strip()}\n{end}", page, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"The page has {found} places for {name}; there must be one: {start} and then {end}.")
    return filled
