"""One run: what it was asked for, how far it came, and how it goes on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetuner_core.artifacts.folder import RUN, is_saved_model
from finetuner_core.runs.find import CHECKPOINTS, LINES, LOCK, MANIFEST, SUFFIX
from finetuner_core.runs.holder import holder
from finetuner_core.runs.lines import Lines, read_lines
from finetuner_core.untrusted import read_json
from finetuner_core.values import quote

State = Literal["running", "stopped", "finished", "broken"]

VERSION = 1
"""Of the format of `run.json`, as `finetuner_core.training.run` writes it."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells of it.

    Args:
        folder: of the run.
        out: where its model is, or will be.
        state: whether a process is at it, and if none is, whether its model is there.
        note: of a run that is going on which process has it; how a stopped one goes on; why one is broken.
        manifest: what `run.json` holds; empty where it cannot be read.
        lines: what `metrics.jsonl` adds up to.
    """

    folder: Path
    out: Path
    state: State
    note: str
    manifest: Mapping[str, Any]
    lines: Lines

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every argument of `fit` by its name."""
        settings = self.manifest.get("settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def all_steps(self) -> int | None:
        """How many steps it has in all; `None` before its first epoch is over."""
        epochs = self.settings.get("epochs")
        if self.lines.steps_of_epoch is not None and type(epochs) is int:
            return self.lines.steps_of_epoch * epochs
        return self.lines.steps if self.state == "finished" and epochs == 1 else None

    @property
    def loss(self) -> str | None:
        """The names of its losses; `None` where it was left to the form of the data."""
        sets = self.settings.get("train_data")
        own = [one.get("loss") for one in sets if isinstance(one, dict)] if isinstance(sets, list) else []
        named = dict.fromkeys(
            str(loss) for loss in (*own, None if all(own) and own else self.settings.get("loss")) if loss
        )
        return ", ".join(named) or None

    def gain(self) -> tuple[str, float, float | None] | None:
        """The main metric, before, and after or at the newest evaluation: the mean over all evaluation data.

        It is the one that decides which weights are best.
        """
        before = self.lines.measured.get("before", {})
        chosen = {name: self._metric(name, metrics) for name, metrics in before.items() if metrics}
        if not chosen:
            return None
        names = {*chosen.values()}
        after = self.lines.measured.get("after") or self.lines.measured.get("step") or {}
        return names.pop() if len(names) == 1 else "mean", _mean(before, chosen) or 0.0, _mean(after, chosen)

    def _metric(self, name: str, metrics: Mapping[str, float]) -> str:
        data = self.manifest.get("data")
        of_name = [str(own) for key, own in data.items() if name in key] if isinstance(data, dict) else []
        labelled = any(" labelled " in own for own in of_name)
        usual = "spearman" if "spearman" in metrics else "map" if labelled else "ndcg@10"
        wanted = self.settings.get("best_metric")
        return next(own for own in (wanted, usual, next(iter(metrics))) if isinstance(own, str) and own in metrics)


def read_run(folder: Path) -> RunRecord:
    """What the folder of a run tells. What is wrong with it is said in its note, and nothing is changed in it."""
    place = folder.absolute()
    is_kept = place.name == RUN
    out = (folder.parent if is_kept and folder.name else place.parent) if is_kept else _beside(folder)
    manifest, problem = _read_manifest(folder / MANIFEST)
    try:
        lines, unread = read_lines(folder / LINES), ""
    except OSError as error:
        lines, unread = Lines(), f"{LINES} cannot be read: {error.strerror or error}"
    if is_kept:
        problem = problem or unread or ("" if is_saved_model(place.parent) else f"the model of {out} is gone")
        state: State = "broken" if problem else "finished"
        note = problem
    else:
        state, note = _unfinished(folder, out, manifest, problem)
    if lines.damaged:
        note += f"{'; ' if note else ''}{lines.damaged:,} lines of {LINES} are damaged and left out"
    return RunRecord(folder, out, state, note, manifest, lines)


def _unfinished(folder: Path, out: Path, manifest: Mapping[str, Any], problem: str) -> tuple[State, str]:
    if held := holder(folder / LOCK):
        return "running", held
    if not any((folder / CHECKPOINTS).glob("step-*")):
        return "stopped", "before its first checkpoint: the same command begins anew"
    if problem:
        return "broken", f"{problem}: what its checkpoints belong to cannot be told"
    if _in_memory(manifest["settings"]):
        return "stopped", f"go on with the same call in Python: finetuner.fit(..., out={str(out)!r})"
    return "stopped", f"go on with: finetuner fit --resume {shlex.quote(str(out))}"


def _beside(folder: Path) -> Path:
    place = folder if folder.name.endswith(SUFFIX) else folder.absolute()
    return place.with_name(place.name.removesuffix(SUFFIX))


def _read_manifest(file: Path) -> tuple[dict[str, Any], str]:
    """What it holds, or what is wrong with it."""
    try:
        manifest = read_json(file)
    except FileNotFoundError:
        return {}, f"{MANIFEST} is missing"
    except OSError as error:
        return {}, f"{MANIFEST} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return {}, f"{MANIFEST} is damaged: {error}"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
        return {}, f"{MANIFEST} is damaged: it holds no settings"
    version = manifest.get("format_version")
    if version != VERSION:
        return {}, f"{MANIFEST} has format version {quote(version)}, and this Finetuner reads {VERSION}"
    return manifest, ""


def _in_memory(value: object) -> bool:
    if isinstance(value, dict):
        return "in_memory" in value or any(map(_in_memory, value.values()))
    return isinstance(value, list) and any(map(_in_memory, value))


def _mean(measured: Mapping[str, Mapping[str, float]], chosen: Mapping[str, str]) -> float | None:
    values = [measured[name].get(metric) for name, metric in chosen.items() if name in measured]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(chosen) else None
