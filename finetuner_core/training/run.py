"""The folder of a run: what it was begun with, what it has come to, and what it said."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetuner_core.artifacts.folder import RUN, check_writable
from finetuner_core.data.sources import TrainingSet
from finetuner_core.errors import FolderError
from finetuner_core.training.checkpoints import Checkpoints, Snapshot, write_synced
from finetuner_core.training.lock import Lock
from finetuner_core.untrusted import read_json

VERSION = 1
"""Of the format of `run.json`."""

MANIFEST, LINES, LOG = "run.json", "metrics.jsonl", "log.txt"
CHECKPOINTS, CACHE, LOCK = "checkpoints", "cache", "lock"
logger = logging.getLogger("finetuner")

# Beside them there are the best weights so far, `best.safetensors`.
_OWN = {MANIFEST, LINES, LOG, CHECKPOINTS, CACHE, LOCK, "best.safetensors", ".best.safetensors.new", f".{MANIFEST}.new"}

_OTHER_VERSIONS = "Install those again, or add --allow-changed-versions: the results are then not quite the same."

# Settings that change nothing of the result: a run may go on with others.
FREE = frozenset(
    {"out", "quiet", "workers", "cache", "checkpoint_every", "keep_checkpoints", "max_time", "allow_changed_versions"}
)


class Run:
    """A run that is going on, in `OUT.run` beside the folder that its model will be saved in.

    It is locked until `close`. A run that is there already goes on where it has a checkpoint, and begins anew where it
    has none.

    Args:
        out: where the model will be saved.
        settings: every argument of `fit`, as JSON holds it.
        keep: how many checkpoints are kept.

    Attributes:
        goes_on: whether there is a checkpoint to go on from.
        before: the newest one that is whole, until it has been put back.

    Raises:
        FolderError: if there is no right to write, another process is at it, there is something else, or a run that was
            begun with other settings.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, object], *, keep: int = 2) -> None:
        self.out = check_writable(out)
        self.folder = run_folder(self.out)
        self.settings = settings
        try:
            self._check_own()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.folder / LOCK)
        except OSError as error:
            raise FolderError(f"{self.folder} cannot be written: {error.strerror or error}.") from None
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS, keep)
        try:
            self._manifest = self._read_manifest()
            if self._manifest is not None:
                self._check("settings", settings, FREE)
            self.before: Snapshot | None = self.checkpoints.newest()
            self.goes_on = self.before is not None
            if not self.goes_on:
                self._clear()
            self._lines = (self.folder / LINES).open("ab")
            self._log = (self.folder / LOG).open("a", encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise
        logger.addFilter(self._hear)

    def begin(self, facts: Mapping[str, Mapping[str, object]], seed: int, *, allow_changed_versions: bool) -> None:
        """Writes down what the run follows from, or compares it with what it was begun with.

        Args:
            facts: `data`, `versions` and `machine`, each a mapping from a name to what it was.
            seed: what every random choice follows from.
            allow_changed_versions: whether it goes on although the versions of libraries are others.

        Raises:
            FolderError: if it was begun with other data, or other versions that are not allowed.
        """
        manifest = {
            "format_version": VERSION,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "directory": str(Path.cwd()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seed": seed,
            "settings": self.settings,
            **facts,
        }
        if self._manifest is not None:
            self._check("data", facts["data"])
            if not allow_changed_versions:
                self._check("versions", facts["versions"], advice=_OTHER_VERSIONS)
            for name, (was, now) in _changed(self._manifest["machine"], facts["machine"]).items():
                logger.warning("the %s is %s and was %s: the last bits of the results may differ", name, now, was)
            manifest = {**self._manifest, "versions": facts["versions"]}
        scratch = self.folder / f".{MANIFEST}.new"
        try:
            write_synced(scratch, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            scratch.replace(self.folder / MANIFEST)
        except OSError as error:
            raise FolderError(f"{self.folder} cannot be written: {error.strerror or error}.") from None
        self._manifest = manifest

    def say(self, text: str) -> None:
        """Puts what a person sees into the log, with the time."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            self._log.writelines(f"{stamp}  {line}\n" for line in text.splitlines())
            self._log.flush()
        except OSError:  # of a disk that is full; whatever matters says so
            pass

    def line(self, **content: object) -> None:
        """Adds a line to `metrics.jsonl`, where it is seen at once.

        Raises:
            FolderError: if the disk is full or refuses.
        """
        try:
            self._lines.write(json.dumps(content).encode() + b"\n")
            self._lines.flush()
        except OSError as error:
            raise FolderError(
                f"{self.folder / LINES} cannot be written: {error.strerror or error}.\n"
                f"Mend that, and go on with: finetuner fit --resume {self.out}"
            ) from None

    def sync(self) -> int:
        """Waits until these lines are on the disk; how many bytes they are."""
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def go_on(self, lines: int) -> None:
        """Leaves of `metrics.jsonl` so many bytes: the steps after them are done once more."""
        self.before = None  # as large as the model, and the moments of its weights
        if self._lines.tell() < lines:
            logger.warning("%s is shorter than it was: lines of steps that were done are missing", LINES)
        else:
            self._lines.truncate(lines)
            self._lines.seek(lines)

    def bring_back(self, file: Path, place: Path) -> None:
        """Puts a file of a checkpoint into its place, which a run may have changed since."""
        scratch = place.with_name(f".{place.name}.new")
        shutil.copyfile(file, scratch)
        scratch.replace(place)

    def copy_into(self, folder: Path) -> None:
        """Copies what is kept of the run into the folder of its model."""
        kept = folder / RUN
        kept.mkdir()
        for name in (MANIFEST, LINES, LOG):
            shutil.copyfile(self.folder / name, kept / name)

    def close(self, *, is_saved: bool = False) -> None:
        """Gives the lock back, and removes the folder where nothing is lost with it.

        Args:
            is_saved: whether the model is in its place.
        """
        logger.removeFilter(self._hear)
        self._lines.close()
        self._log.close()
        is_kept = bool(self.checkpoints) and not is_saved
        if not is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        if not is_kept and os.name == "nt":  # where a file that is open stays
            shutil.rmtree(self.folder, ignore_errors=True)

    def _hear(self, record: logging.LogRecord) -> bool:
        # A filter and no handler: with a handler Python would no longer print warnings.
        if record.levelno >= logging.WARNING:
            self.say(f"{record.levelname.lower()}: {record.getMessage()}")
        return True

    def _check_own(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise FolderError(f"{self.folder} is a file; a run is kept there.\nMove it away, or take another --out.")
        strange = sorted({path.name for path in self.folder.iterdir()} - _OWN) if self.folder.exists() else []
        if strange:
            raise FolderError(
                f"{self.folder} is where a run is kept, and holds something else: {strange[0]}.\nMove it away."
            )

    def _clear(self) -> None:
        """Begins anew: nothing is there that could go on."""
        self._manifest = self.before = None
        for name in _OWN - {LOCK}:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _read_manifest(self) -> dict[str, Any] | None:
        """What the run was begun with; `None` where there is no checkpoint of it."""
        if not self.checkpoints:
            return None
        manifest = _read(self.folder / MANIFEST)
        if manifest is None:
            raise FolderError(
                f"{self.folder / MANIFEST} is missing or damaged: what its checkpoints belong to cannot be told.\n"
                "Bring it back, or remove that folder to begin anew."
            )
        return manifest

    def _check(
        self, what: str, now: Mapping[str, object], free: frozenset[str] = frozenset(), advice: str = ""
    ) -> None:
        changed = _changed((self._manifest or {})[what], now, free)
        if changed:
            said = ", ".join(f"{name} {_short(was)} (now {_short(new)})" for name, (was, new) in changed.items())
            usual = (
                f"Go on as it was begun (finetuner fit --resume {self.out}), take another --out, or remove that folder."
            )
            raise FolderError(f"{self.folder} holds a run with other {what}: {said}.\n{advice or usual}")


def run_folder(out: Path) -> Path:
    """Where the run is kept whose model will be saved in a folder."""
    return out.with_name(f"{out.name}.run")


def read_settings(out: str | Path) -> dict[str, Any]:
    """The arguments of `fit` of a run that is to go on.

    Raises:
        FolderError: if there is none, or if it was begun with what cannot be read again.
    """
    out = Path(out).expanduser().absolute()
    if out.name.endswith(".run") and not run_folder(out).exists():
        out = out.with_name(out.name.removesuffix(".run"))
    manifest = _read(run_folder(out) / MANIFEST)
    if manifest is None:
        finished = out / RUN / MANIFEST
        raise FolderError(
            f"{out} is a run that has ended. Repeat it with: finetuner fit --config {finished} --out DIR"
            if finished.is_file()
            else f"There is no run to go on with: no {run_folder(out) / MANIFEST}."
        )
    settings = dict(manifest["settings"])
    for name, value in settings.items():
        if in_memory(value):
            raise FolderError(
                f"The run in {run_folder(out)} was begun in Python with a {name} in memory.\n"
                f"Go on with the same call: finetuner.fit(..., out={str(out)!r})."
            )
    for name in ("train_data", "eval_data"):
        settings[name] = _training_sets(settings[name])
    # Each process is told for itself how long it may take, and whether other versions will do.
    for name in ("max_time", "allow_changed_versions"):
        settings.pop(name, None)
    return settings | {"out": str(out)}


def _training_sets(value: Any) -> Any:
    """The data sets that `settings_as_json` has written as mappings."""
    if isinstance(value, list):
        return [_training_sets(own) for own in value]
    return TrainingSet(**value) if isinstance(value, dict) else value


def in_memory(value: object) -> bool:
    """Whether a setting is one that a file cannot hold, or has one in it."""
    if isinstance(value, Mapping):
        return "in_memory" in value or any(map(in_memory, value.values()))
    return isinstance(value, list) and any(map(in_memory, value))


def _read(file: Path) -> dict[str, Any] | None:
    """What a `run.json` says; `None` where there is none or it is cut short."""
    try:
        content = read_json(file)
        version = content["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if version != VERSION:
        raise FolderError(
            f"{file} has format version {version}; this Finetuner reads {VERSION}.\n"
            "If it was written by a newer one: pip install --upgrade finetuner-core"
        )
    return dict(content)


def _changed(
    before: Mapping[str, object], now: Mapping[str, object], free: frozenset[str] = frozenset()
) -> dict[str, tuple[object, object]]:
    """By name what was and what is, where they differ; nothing given is the same as nothing in it."""
    return {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now} - free)
        if (before.get(name) if before.get(name) not in ({}, []) else None)
        != (now.get(name) if now.get(name) not in ({}, []) else None)
    }


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
