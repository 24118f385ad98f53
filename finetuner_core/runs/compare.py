"""Runs side by side: what they came to, and the settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from finetuner_core.runs.record import RunRecord
from finetuner_core.values import printable

# Those that have a column in any case, and those that are never the same or say nothing.
_SHOWN = ("model", "train_data", "loss", "epochs")
_SILENT = ("out", "quiet")

_WIDEST = 40
"""Characters of a cell."""


def differences(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """For each setting that is not the same in all runs its value in each; `None` where it was not given."""
    flat = [dict(_flat(run.settings)) for run in runs]
    names = dict.fromkeys(name for own in flat for name in own)
    known = [own for own in flat if own]  # a run.json that cannot be read tells no difference
    return {
        name: [own.get(name) for own in flat]
        for name in names
        if len({json.dumps(own.get(name), sort_keys=True) for own in known}) > 1
    }


def render(runs: Sequence[RunRecord], root: Path) -> str:
    """A table of the runs, and below it a line for each of which there is more to say."""
    columns: dict[str, list[Any]] = {
        "run": [_name(run, root) for run in runs],
        "state": [f"{run.state} ({run.note})" if run.state == "running" else run.state for run in runs],
        "started": [_started(run) for run in runs],
        "model": _short([_listed(run.settings.get("model")) for run in runs]),
        "data": _short([_listed(run.settings.get("train_data")) for run in runs]),
        "loss": [run.loss or ("by the data" if run.settings else None) for run in runs],
        "epochs": [run.settings.get("epochs") for run in runs],
        "steps": [_steps(run) for run in runs],
        "seconds": [f"{run.lines.seconds:,.1f}" for run in runs],
        "metric": [_gain(run) for run in runs],
        **differences(runs),
    }
    rows = [[_cell(own[number]) for own in columns.values()] for number in range(len(runs))]
    table = tabulate(rows, [_cell(name) for name in columns], tablefmt="simple", disable_numparse=True)
    notes = [
        f"{name}: {run.state}, {run.note}."
        for name, run in zip(columns["run"], runs, strict=True)
        if run.note and run.state != "running"
    ]
    return "\n".join([table, *([""] if notes else []), *notes])


def as_json(run: RunRecord, root: Path) -> dict[str, Any]:
    """A run as `finetuner runs --json` gives it."""
    gain = run.gain()
    metric, before, after = gain if gain is not None else (None, None, None)
    settings = run.settings
    return {
        "name": _name(run, root),
        "folder": str(run.folder),
        "out": str(run.out),
        "state": run.state,
        "note": run.note,
        "started": run.manifest.get("started"),
        "model": settings.get("model"),
        "data": settings.get("train_data"),
        "loss": run.loss,
        "epochs": settings.get("epochs"),
        "epoch": run.lines.epoch,
        "steps": run.lines.steps,
        "all_steps": run.all_steps,
        "seconds": run.lines.seconds,
        "metric": metric,
        "before": before,
        "after": after,
        "after_step": None if after is None else run.lines.checked,
        "damaged_lines": run.lines.damaged,
        "settings": settings,
    }


def _name(run: RunRecord, root: Path) -> str:
    """Its model's folder, as seen from where it was looked for."""
    out = run.out.absolute()
    inner = out.relative_to(root.absolute()) if out.is_relative_to(root.absolute()) else Path()
    return str(inner) if inner != Path() else out.name


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name in (*_SHOWN, *_SILENT):
            continue
        if isinstance(value, dict) and "in_memory" not in value:
            yield from ((f"{name}.{own}", inner) for own, inner in value.items())
        else:
            yield name, None if value == [] else value


def _listed(value: Any) -> list[str]:
    """The data sets, or the model, of which each may be a mapping."""
    parts = value if isinstance(value, list) else [value]
    return [str(one.get("data", one.get("in_memory"))) if isinstance(one, dict) else str(one) for one in parts if one]


def _short(values: Sequence[list[str]]) -> list[str]:
    """Paths by their last names, where these tell them apart."""
    full = {own for value in values for own in value}
    short = {own: Path(own).name if Path(own).is_absolute() else own for own in full}
    are_told = len({*short.values()}) == len(full)
    return [", ".join(short[own] if are_told else own for own in value) for value in values]


def _started(run: RunRecord) -> str:
    return str(run.manifest.get("started") or "")[:19].replace("T", " ")


def _steps(run: RunRecord) -> str:
    return f"{run.lines.steps:,} of {run.all_steps or '?'}"


def _gain(run: RunRecord) -> str | None:
    gain = run.gain()
    if gain is None:
        return None
    name, before, after = gain
    if after is None:
        return f"{name} {before:.3f} ->"
    at = "" if "after" in run.lines.measured else f" at step {run.lines.checked:,}"
    return f"{name} {before:.3f} -> {after:.3f}{at}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST // 2 - 2]}...{text[-_WIDEST // 2 + 1 :]}"
