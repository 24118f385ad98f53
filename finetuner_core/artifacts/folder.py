"""The folder of a saved model: how it is written, and its `finetuner.json`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetuner_core.catalogue.names import is_path, resolve
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import FolderError, OptionError
from finetuner_core.values import BackboneInfo, quote

FORMAT_VERSION = 1
FILE = "finetuner.json"

_SUFFIXES = frozenset({".json", ".safetensors"})
_ROW_FIELDS = ("name", "task", "output_dim", "architecture", "description", "licence", "source", "parameters")


def is_saved_model(path: str | Path) -> bool:
    """Whether a folder holds a model that Finetuner has saved."""
    try:
        return (Path(path).expanduser() / FILE).is_file()
    except (OSError, RuntimeError):  # a name too long for a folder, or ~somebody who is not there
        return False


def check_writable(path: str | Path) -> Path:
    """Whether a model can be written to `path`, asked before the work that it would cost.

    Raises:
        FolderError: if there is something that is no saved model, or no right to write.
    """
    path = Path(path).expanduser().absolute()
    try:
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file; a model is written into a folder.")
        if path in (Path.cwd(), *Path.cwd().parents):
            raise FolderError(f"{path} is the folder that you are in, or above it.\nGive a folder of its own.")
        if strange := _strangers(path):
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
    path = check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            write(new)
            _give_usual_rights(new)
            strange = [file.name for file in new.rglob("*") if file.is_file() and file.suffix not in _SUFFIXES]
            if strange:
                raise FolderError(
                    f"The backbone's plugin wrote {', '.join(strange)}; allowed are JSON and safetensors."
                )
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


def _strangers(path: Path) -> list[Path]:
    """Files of a folder that no saved model has left there, and that replacing the folder would lose."""
    files = sorted(file for file in path.rglob("*") if not file.is_dir()) if path.is_dir() else []
    try:
        own = {path / FILE, *(path / name for name in json.loads((path / FILE).read_text("utf-8"))["files"])}
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


@dataclass(frozen=True)
class SavedModel:
    """What `finetuner.json` says of a saved model.

    Args:
        info: the backbone's row.
        pooling: the name of its pooling.
        projection_dim: the width of its projection, `None` where it has none.
    """

    info: BackboneInfo
    pooling: str
    projection_dim: int | None

    def write(self, folder: Path) -> None:
        """Writes `finetuner.json`, the last file of the folder: it names all others."""
        content = {
            "format_version": FORMAT_VERSION,
            "plugin": self.info.namespace,
            "backbone": {name: getattr(self.info, name) for name in _ROW_FIELDS},
            "pooling": self.pooling,
            "projection_dim": self.projection_dim,
            "files": sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()),
        }
        write_json(folder / FILE, content)

    @classmethod
    def read(cls, folder: Path) -> SavedModel:
        """Reads `finetuner.json`.

        Raises:
            FolderError: if it is not there, not readable, or of a newer format.
        """
        file = folder / FILE
        if not file.is_file():
            raise FolderError(f"{folder} holds no saved model: there is no {FILE} in it.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content["format_version"]
            if version != FORMAT_VERSION:
                raise FolderError(
                    f"{file} has format version {quote(version)}; this Finetuner reads {FORMAT_VERSION}.\n"
                    "If it was written by a newer one: pip install --upgrade finetuner-core"
                )
            row = {name: content["backbone"][name] for name in _ROW_FIELDS}
            info = BackboneInfo(**row, poolings=(content["pooling"],), namespace=str(content["plugin"]))
            width = content["projection_dim"]
            if width is not None and (type(width) is not int or width < 1):
                raise FolderError(f"{file} is not valid: projection_dim is {quote(width)}, no positive whole number.")
            return cls(info, content["pooling"], width)
        except OptionError as error:
            raise FolderError(f"{file} is not valid: {error}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{file} cannot be read: {type(error).__name__}: {error}.") from None


def write_json(file: Path, content: object) -> None:
    """Writes JSON that a person can read."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_name(model: str | Path) -> str:
    """The name that stands for a model: a `Path` is a folder, also where it does not look like one when it is written.

    >>> model_name("bert")
    'bert'
    """
    return str(model.expanduser().absolute()) if isinstance(model, Path) else model


def find_row(name: str) -> BackboneInfo:
    """The row of a model without loading it: of the table, of a plugin, or of a saved model.

    Raises:
        UnknownNameError: if nobody, or more than one plugin, knows it.
        FolderError: if it is the folder of a saved model that cannot be read.
    """
    if is_path(name) and is_saved_model(name):
        return SavedModel.read(Path(name).expanduser().resolve()).info
    return resolve(catalogue(), name)
