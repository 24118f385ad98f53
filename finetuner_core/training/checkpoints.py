"""Checkpoints on the disk: each is whole or not there, and one that was damaged since is noticed."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finetuner_core.errors import FolderError
from finetuner_core.training.tensors import sha256_of, size_of, write_tensors
from finetuner_core.untrusted import read_json

logger = logging.getLogger("finetuner")

VERSION = 1
"""Of the format. What a newer version has written is not read."""

_TENSORS, _NUMBERS = "state.safetensors", "state.json"
# What is left free on the disk, in bytes: for the log, and for others who write there.
_SPARE = 16 * 2**20


@dataclass(frozen=True)
class Snapshot:
    """All that a run has come to.

    Args:
        tensors: by name.
        numbers: what JSON can hold, by name.
        files: further files that belong to it, by name: safetensors that are never changed once they are written.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


class Checkpoints:
    """A folder of checkpoints, the last few of a run.

    Each is written beside its place, synced, and renamed into it; only then is the oldest removed. So there is a good
    one at every instant after the first.

    Args:
        folder: where; it is made when the first is written.
        keep: how many there are at most.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def __bool__(self) -> bool:
        """Whether there is one, be it good or damaged."""
        return bool(self._steps())

    def write(self, step: int, snapshot: Snapshot) -> None:
        """Writes one.

        Args:
            step: after how many steps of the run it is.
            snapshot: what it holds.

        Raises:
            FolderError: if the disk is full or refuses. Those before are as they were.
        """
        place = self._place(step)
        scratch = self.folder / f".{place.name}.new"
        try:
            self.folder.mkdir(exist_ok=True)
            self._check_room(size_of(snapshot.tensors))
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            sums = {_TENSORS: write_tensors(scratch / _TENSORS, snapshot.tensors)}
            for name, file in snapshot.files.items():
                _link(file, scratch / name)
                sums[name] = sha256_of(scratch / name)
            content = {"version": VERSION, "step": step, "files": sums, **snapshot.numbers}
            text = json.dumps({"sha256": _sha256(content), "content": content}, indent=1)
            write_synced(scratch / _NUMBERS, text)
            _sync_folder(scratch)
            shutil.rmtree(place, ignore_errors=True)  # one of the same step that was damaged
            scratch.rename(place)
            _sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else error.strerror or str(error)
            raise FolderError(
                f"The checkpoint of step {step:,} cannot be written to {self.folder}: {why}.\n"
                f"{'Make room' if full else 'Mend that'}, and go on with the same command: "
                + (f"the checkpoint of step {self._steps()[-1]:,} is whole." if self else "there is none before it.")
            ) from error
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(self._place(old), ignore_errors=True)

    def newest(self) -> Snapshot | None:
        """The newest that is whole; of each that is not a word is said. `None` where there is none.

        Raises:
            FolderError: if it was written by a newer version.
        """
        for step in reversed(self._steps()):
            try:
                return self._read(self._place(step))
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                logger.warning("the checkpoint of step %s is damaged, and the one before is used: %s", step, error)
        return None

    def remove(self) -> None:
        """Removes all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, place: Path) -> Snapshot:
        text = read_json(place / _NUMBERS)
        content = text["content"]
        if text["sha256"] != _sha256(content):
            raise ValueError(f"{_NUMBERS} is not as it was written")
        if content["version"] != VERSION:
            raise FolderError(
                f"{place} has format version {content['version']}; this Finetuner reads {VERSION}.\n"
                "Go on with the version that it was begun with, or begin anew with another --out."
            )
        for name, checksum in content["files"].items():
            if sha256_of(place / name) != checksum:
                raise ValueError(f"{name} is not as it was written")
        files = {name: place / name for name in content["files"] if name != _TENSORS}
        return Snapshot(load_file(place / _TENSORS), content, files)

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:07}"

    def _steps(self) -> list[int]:
        """Of each that is there, in order."""
        return sorted(_numbers(self.folder))

    def _check_room(self, needed: int) -> None:
        if shutil.disk_usage(self.folder).free < needed + _SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _numbers(folder: Path) -> Iterator[int]:
    for place in folder.glob("step-*"):
        with suppress(ValueError):
            yield int(place.name.removeprefix("step-"))


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _link(file: Path, place: Path) -> None:
    """The same file at another place, and a copy where the disk has no links."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def write_synced(file: Path, text: str) -> None:
    """Writes a file of text and waits until it is on the disk."""
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; Windows cannot be asked for it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
