"""Before and after, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate


def render_metrics(metrics: Mapping[str, float]) -> str:
    """One column of metrics."""
    return _render(("metric", "value"), [(name, f"{value:.3f}") for name, value in metrics.items()])


def render_comparison(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Metrics before and after training, and what they gained."""
    rows = [
        (name, f"{before[name]:.3f}", f"{after[name]:.3f}", f"{after[name] - before[name]:+.3f}") for name in before
    ]
    return _render(("metric", "before", "after", "gain"), rows)


def _render(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers, tablefmt="simple", stralign="right", disable_numparse=True)
