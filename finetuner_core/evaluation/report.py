"""Numbers with their intervals, and before and after side by side."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from finetuner_core.evaluation.resampling import Interval
from finetuner_core.evaluation.result import Evaluation, compare


def render_metrics(metrics: Evaluation) -> str:
    """One column of numbers with the 95% interval of each, and over how many queries."""
    rows = [(name, f"{value:.3f}", _interval(metrics.interval(name), "{:.3f}")) for name, value in metrics.items()]
    left_out = f" ({metrics.left_out:,} more have nothing to find)" if metrics.left_out else ""
    return f"{_render(('metric', 'value', '95% interval'), rows)}\n{len(metrics.query_ids):,} {metrics.unit}{left_out}"


def render_comparison(before: Evaluation, after: Evaluation) -> str:
    """Numbers before and after training, what they gained, its 95% interval, and how likely chance gains as much."""
    rows = [
        (
            name,
            f"{gain.before:.3f}",
            f"{gain.after:.3f}",
            f"{gain.gain:+.3f}",
            _interval(gain.interval, "{:+.3f}"),
            f"{gain.p:.4f}" if gain.p >= 0.0002 else "<0.0002",
        )
        for name, gain in compare(before, after).items()
    ]
    return _render(("metric", "before", "after", "gain", "95% interval", "p"), rows)


def _interval(interval: Interval, form: str) -> str:
    return " to ".join(form.format(end) for end in interval)


def _render(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers, tablefmt="simple", stralign="right", disable_numparse=True)
