"""The folder of a saved model: how it is written, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from finetuner_core.errors import FolderError
from finetuner_core.untrusted import read_json
from finetuner_core.values import quote

FILE = "finetuner.json"
RUN = "run"
"""The folder in that of a saved model that tells of the run that it comes from."""

_SUFFIXES = frozenset({".json", ".safetensors"})


def is_saved_model(path: str | Path) -> bool:
    """Whether a folder holds a model that Finetuner has saved."""
    try:
        return (Path(path).expanduser() / FILE).is_file()
    except (OSError, RuntimeError):  # a name too long for a folder, or ~somebody who is not there
        return False


def check_writable(path: str | Path, mark: str = FILE) -> Path:
    """Whether a model can be written to `path`, asked before the work that it would cost.

    Args:
        path: the folder that is to be.
        mark: the file that names all others of such a folder, so that one may be replaced and nothing else.

    Raises:
        FolderError: if there is something that is no saved model, or no right to write.
    """
    path = Path(path).expanduser().absolute()
    try:
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file; a model is written into a folder.")
        if path in (Path.cwd(), *Path.cwd().parents):
            raise FolderError(f"{path} is the folder that you are in, or above it.\nGive a folder of its own.")
        if strange := _strangers(path, mark):
            raise FolderError(
                f"{path} holds something else than a saved model: {strange[0].relative_to(path)}.\n"
                "Choose a new folder, or empty that one."
            )
        parent = next(parent for parent in path.parents if parent.exists())
    except OSError as error:
        raise _unwritable(path, error) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise FolderError(f"{path} cannot be written: no right to write in {parent}.")
    return path


def write_folder(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Writes a folder beside its place and renames it into it, so that nothing half-written is ever there.

    Args:
        path: where it is to be.
        write: writes its files into an empty folder that it is given.

    Returns:
        The folder.

    Raises:
        FolderError: if there is something that is no saved model, the disk refuses, or what was written is neither
            safetensors nor JSON.
    """

    def checked(new: Path) -> None:
        write(new)
        if strange := [file.name for file in new.rglob("*") if file.is_file() and not _is_allowed(file, new)]:
            raise FolderError(f"The backbone's plugin wrote {', '.join(strange)}; allowed are JSON and safetensors.")

    return replace_folder(check_writable(path), checked)


def replace_folder(path: Path, write: Callable[[Path], None]) -> Path:
    """Writes a folder beside its place and renames it into it, whatever was there before.

    Args:
        path: where it is to be; absolute, and asked for by `check_writable`.
        write: writes its files into an empty folder that it is given.

    Raises:
        FolderError: if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            write(new)
            _give_usual_rights(new)
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _is_allowed(file: Path, folder: Path) -> bool:
    """Whether a saved model has such a file: nothing that is executed, a card for people, and how the run went."""
    return file.suffix in _SUFFIXES or file == folder / "README.md" or file.parent == folder / RUN


def _strangers(path: Path, mark: str) -> list[Path]:
    """Files of a folder that no saved model has left there, and that replacing the folder would lose."""
    files = sorted(file for file in path.rglob("*") if not file.is_dir()) if path.is_dir() else []
    try:
        own = {path / mark, *(path / name for name in read_json(path / mark)["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    return [file for file in files if file not in own]


def _give_usual_rights(folder: Path) -> None:
    """Files that others may read where the umask allows it: some libraries write theirs for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


def _unwritable(path: Path, error: OSError) -> FolderError:
    return FolderError(f"{quote(path)} cannot be written: {error.strerror or error}.")


def write_json(file: Path, content: object) -> None:
    """Writes JSON that a person can read."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
