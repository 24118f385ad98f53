"""What may come from a stranger: JSON, and the folders of models. Looked at before anything is made of it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from finetuner_core.errors import FolderError
from finetuner_core.values import quote

LARGEST_JSON = 1 << 28
"""Bytes: the largest that is known, the tokenizer of a model with a vocabulary of all languages, has 33 MB."""

_DEEPEST = 100

_MOST_FILES = 1000


def read_json(file: Path, *, strict: bool = False) -> Any:
    """What a file of JSON holds. It is not read where it is too large, and takes no more than Python's own stack.

    Args:
        file: in UTF-8.
        strict: whether to refuse what JSON does not know (NaN, Infinity), and an object that has a key twice, of which
            two readers may take a different one. For files that Finetuner itself has written; others write such.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is none, is larger than `LARGEST_JSON`, or is nested more than 100 deep.
    """
    _check_json(file)
    text = file.read_text("utf-8")
    try:
        if strict:
            content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated)
        else:
            content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _check_depth(content)
    return content


def check_folder(folder: Path, *, saved: bool = False) -> None:
    """Whether the folder of a model can be given to a library, which reads files without asking how large they are.

    Args:
        folder: of whoever's format.
        saved: whether it is one that Finetuner has saved: nothing in it leads out of it. Links into the Hub's cache may
            stand in a folder of that cache, which has no other files.

    Raises:
        FolderError: if a file is too large, is none (a device, a pipe), or is in another folder.
    """
    try:
        for path in _all(folder) if saved else _described(folder):
            name = path.relative_to(folder)
            if saved and not _is_within(path, folder):
                raise FolderError(
                    f"{folder} is refused: {quote(name)} in it leads out of it, to {quote(os.path.realpath(path))}.\n"
                    "A saved model holds all that it needs; copy the file itself into it if it belongs there."
                )
            if path.is_dir():
                continue
            if not stat.S_ISREG(path.stat().st_mode):
                raise FolderError(f"{folder} is refused: {quote(name)} in it is no file, but a device or a pipe.")
            if path.suffix == ".json":
                _check_described(folder, path)
    except OSError as error:
        raise FolderError(f"{folder} cannot be read: {error.strerror or error}.") from None


def _all(folder: Path) -> Iterator[Path]:
    """Every file and folder in it; links are not followed."""
    count = 0
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            count += 1
            if count > _MOST_FILES:
                raise FolderError(f"{folder} is refused: it holds more than {_MOST_FILES:,} files; a model has a few.")
            yield Path(root) / name


def _described(folder: Path) -> Iterator[Path]:
    """The JSON of it and of the folders in it, where libraries look."""
    for pattern in ("*.json", "*/*.json"):
        yield from folder.glob(pattern)


def _is_within(path: Path, folder: Path) -> bool:
    if not path.is_symlink():
        return True
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    snapshots = next((parent for parent in home.parents if parent.name == "snapshots"), None)
    return real.is_relative_to(home) or (snapshots is not None and real.is_relative_to(snapshots.parent / "blobs"))


def _check_described(folder: Path, file: Path) -> None:
    try:
        _check_json(file)
        # Whose names transformers puts behind the folder's without a look at them.
        index = read_json(file) if file.name.endswith(".index.json") else None
    except ValueError as error:
        raise FolderError(f"{folder} is refused: {quote(file.relative_to(folder))} cannot be read: {error}.") from None
    shards = index.get("weight_map") if isinstance(index, dict) else None
    for shard in shards.values() if isinstance(shards, dict) else ():
        if not isinstance(shard, str) or not shard or Path(shard).name != shard or shard == ".." or "\\" in shard:
            raise FolderError(
                f"{folder} is refused: {quote(file.name)} names weights that are no file of it, {quote(shard)}.\n"
                "Fetch the model anew, from someone you trust."
            )


def _check_json(file: Path) -> None:
    size = file.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"it has {size:,} bytes, and no such file has more than {LARGEST_JSON:,}")


def _check_depth(content: object) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{quote(next(name for name in names if names.count(name) > 1))} stands twice in one object")
    return content
