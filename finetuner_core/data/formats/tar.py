"""WebDataset: tars in which members of one name and different extensions, next to each other, are a sample.

The layout is that of https://github.com/webdataset/webdataset: a sample's name ends at the first dot of the base name,
and what follows it is the member's extension, in small letters or large ones.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from finetuner_core.data.slices import TarCells
from finetuner_core.data.tables import IMAGE_SUFFIXES, Table
from finetuner_core.errors import DataError
from finetuner_core.values import quote

# The column of a member by its extension; one such as `anchor.jpg` names its column itself.
_TEXTS = {"txt": "text", "text": "text", "cls": "label"}
_COLUMN = _TEXTS | {suffix.removeprefix("."): "image" for suffix in IMAGE_SUFFIXES}
_READ = frozenset({*_TEXTS, "json"})

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
# Members that say something about the whole tar.
_ABOUT = re.compile(r"__[^/]*__($|/)")

_PACKED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}

# Bytes of a text or of JSON, which are held in memory; an image stays where it is.
_LARGEST_TEXT = 1 << 26

# More different extensions than any data set has: there a dot is part of the samples' names.
_COLUMNS = 1000


def is_pattern(name: str) -> bool:
    """Whether a name stands for several tars, such as `shards/train-{000..012}.tar` or `shards/*.tar`."""
    return name.lower().endswith(".tar") and any(letter in name for letter in "*?[{")


def read(path: str | Path) -> Table:
    """Reads a tar, or several as one, in which images stay until they are asked for. Nothing is unpacked.

    An image is in the column `image`, `.txt` is in `text`, `.cls` in `label`, and the keys of `.json` are columns of
    their own; `.anchor.jpg` is in the column `anchor`. What is in a member of its own counts before what JSON says.

    Args:
        path: a tar, or a pattern with `*`, `?`, `[...]`, `{a,b}` or `{000..012}`.

    Raises:
        DataError: if there is none, one is packed, damaged or cut short, or they hold no samples.
    """
    paths = _expand(os.path.expanduser(path))  # noqa: PTH111 - Path's raises where there is no such user
    samples = _Samples(paths)
    for tar in range(len(paths)):
        samples.add(tar)
    if not samples.names:
        others = f" ({samples.ignored:,} are of other kinds)" if samples.ignored else ""
        raise DataError(
            f"{path} holds no samples{others}.\n"
            "A sample is 0001.jpg with 0001.cls or 0001.txt beside it, or 0001.json with the columns as its keys."
        )
    return Table(Path(path), samples.columns(), place_of=samples.where)


def _expand(pattern: str) -> list[Path]:
    if Path(pattern).is_file():
        return [Path(pattern)]
    paths = [Path(file) for name in _braces(pattern) for file in _files(name)]
    if not paths:
        raise DataError(f"There is no file like {quote(pattern)}.")
    return list(dict.fromkeys(paths))


def _files(name: str) -> list[str]:
    if any(letter in name for letter in "*?["):
        found = sorted(file for file in glob(name) if Path(file).is_file())  # noqa: PTH207 - a pattern may be absolute
        if not found:
            raise DataError(f"There is no file like {quote(name)}.")
        return found
    if not Path(name).is_file():
        raise DataError(f"There is no file {quote(name)}.")
    return [name]


def _braces(pattern: str) -> Iterator[str]:
    """Every name that a pattern stands for, as a shell has it: `{a,b}` is either, `{08..10}` is 08, 09 and 10."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        yield pattern
        return
    first, last = pattern[: found.start()], pattern[found.end() :]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if numbers is None:
        choices = found[1].split(",")
    else:
        width = max(map(len, numbers.groups())) if any(end.startswith("0") for end in numbers.groups()) else 0
        choices = [f"{number:0{width}}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    for choice in choices:
        yield from _braces(first + choice + last)


class _Member(NamedTuple):
    """A file in a tar, by the name of its sample; with its content where that is text."""

    sample: str
    extension: str
    offset: int
    size: int
    content: bytes | None

    @property
    def column(self) -> str:
        """The column that it is in; empty where it is in none, or its keys are columns."""
        stem, _, kind = self.extension.lower().rpartition(".")
        return (stem or _COLUMN[kind]) if kind in _COLUMN else ""


class _Samples:
    """What is gathered from tars: the name of each sample, and for each column the members or the texts in it.

    Args:
        paths: the tars.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.names, self.ignored = paths, list[str](), 0
        self._tars = array("q")
        self._texts: dict[str, list[Any]] = {}
        self._images: dict[str, array[int]] = {}
        self._extensions: dict[str, int] = {}

    def where(self, row: int) -> str:
        """The tar and the name of a sample."""
        return f"{self.paths[self._tars[row]]}: {self.names[row]}"

    def columns(self) -> dict[str, list[Any] | TarCells]:
        """The cells of each column; None where a sample has none."""
        count, extensions = len(self.names), list(self._extensions)
        columns: dict[str, list[Any] | TarCells] = {}
        for column, places in self._images.items():
            places.extend([-1] * (4 * count - len(places)))
            found = np.frombuffer(places, np.int64).reshape(count, 4)
            columns[column] = TarCells(self.paths, self.names, extensions, found, np.arange(count))
        for column, cells in self._texts.items():
            columns[column] = cells + [None] * (count - len(cells))
        return columns

    def add(self, tar: int) -> None:
        """Adds the samples of one tar, of which the headers are read, and the texts.

        Raises:
            DataError: if it is packed or damaged, or is not in the order that samples have.
        """
        path, seen = self.paths[tar], set[str]()
        for sample, group in groupby(_members(path), attrgetter("sample")):
            if sample in seen:
                raise DataError(
                    f"{path}: the members of the sample {quote(sample)} are not next to each other.\n"
                    "Write them in the order of their names: tar --sort=name -cf ..."
                )
            seen.add(sample)
            members = list(group)
            cells = _cells(path, members)
            self.ignored += sum(member.content is None and not member.column for member in members)
            if cells:
                self._add(sample, tar, cells)

    def _add(self, sample: str, tar: int, cells: Mapping[str, Any]) -> None:
        row = len(self.names)
        self.names.append(sample)
        self._tars.append(tar)
        for column, cell in cells.items():
            is_image = isinstance(cell, _Member)
            if column in (self._texts if is_image else self._images):
                raise DataError(
                    f"{self.where(row)}: {quote(column)} is an image in some samples, and a text in others."
                )
            if is_image:
                places = self._images.setdefault(column, array("q"))
                places.extend([-1] * (4 * row - len(places)))
                extension = self._extensions.setdefault(cell.extension, len(self._extensions))
                places.extend((tar, extension, cell.offset, cell.size))
            else:
                texts = self._texts.setdefault(column, [])
                texts += [None] * (row - len(texts))
                texts.append(cell)
        if len(self._texts) + len(self._images) > _COLUMNS:
            raise DataError(
                f"{self.where(row)}: by here there are more than {_COLUMNS:,} columns ({quote(column)}).\n"
                "The name of a sample ends at its first dot, and what follows names the column: 0001.jpg, 0001.txt"
            )


def _cells(path: Path, members: Sequence[_Member]) -> dict[str, Any]:
    """The cells of one sample, by column: an image's member, or a text, or what JSON says."""
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    seen = set[str]()
    for member in members:
        where = f"{path}: {member.sample}.{member.extension}"
        taken = member.column or member.extension.lower()
        if taken in seen:
            raise DataError(f"{where} is the second member for {quote(taken)} in its sample.")
        seen.add(taken)
        if member.content is None:
            if member.column:
                own[member.column] = member
        elif member.column:
            own[member.column] = _text(where, member.content)
        else:
            others.update(_keys(where, member.content))
    return others | own


def _text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        byte = f"0x{content[error.start]:02x}"
        raise DataError(f"{where}: the byte {byte} is no UTF-8 text.\nSave it as UTF-8.") from None


def _keys(where: str, content: bytes) -> dict[str, Any]:
    """What JSON says of a sample: texts, numbers and lists; objects are no cells."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f'{where} holds a {type(found).__name__}, and no object such as {{"text": "..."}}')
    return {key: cell for key, cell in found.items() if not isinstance(cell, dict)}


def _members(path: Path) -> Iterator[_Member]:
    """The files in a tar that are part of a sample."""
    with path.open("rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        packed = next((command for mark, command in _PACKED.items() if start.startswith(mark)), None)
        if packed is not None:
            raise DataError(
                f"{path} is packed, and of a packed tar no member can be read without those before it.\n"
                f"Unpack it, but for the tar itself: {packed} {path}"
            )
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                yield from _scan(tar, stream)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as a tar: {error}.\nIt is damaged, or not whole.") from None


def _scan(tar: tarfile.TarFile, stream: IO[bytes]) -> Iterator[_Member]:
    last = -1
    while (found := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # which it keeps for those who ask for a name
        if found.offset_data <= last or found.size < 0:
            raise ValueError(f"at byte {found.offset:,} it goes back")
        last = found.offset_data
        match = _NAME.fullmatch(found.name)
        if match is None or _ABOUT.match(found.name) or not found.isreg() or found.issparse():
            continue
        content = None
        if match[2].lower().rpartition(".")[2] in _READ:
            if found.size > _LARGEST_TEXT:
                raise ValueError(
                    f"{found.name} has {found.size:,} bytes, no text of a sample more than {_LARGEST_TEXT:,}"
                )
            stream.seek(found.offset_data)
            content = stream.read(found.size)
        yield _Member(match[1], match[2], found.offset_data, found.size, content)
    # Where a header is damaged, Python takes it for the end, which is a block of zeros.
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise ValueError(f"at byte {tar.offset:,} there is no header")
