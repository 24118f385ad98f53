"""Files of text: packed or not, in whatever encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import quote

PACKED = (".gz", ".bz2", ".xz")

LONGEST_LINE = 1 << 26
"""Letters. A line is held in memory as a whole, which no text and no vector needs more of."""

_UNPACKED = 1 << 30
"""Letters that any packed file may have; beyond, a hundred times its bytes. Texts pack to a tenth, zeros to nothing."""

_RATIO = 100

Packed: TypeAlias = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | BufferedReader

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[Iterator[str]]:
    """The lines of a file, each with the end that it has; a line ends at a newline, a carriage return, or both.

    Args:
        path: packed where its name ends in `.gz`, `.bz2` or `.xz`.
        encoding: of its letters, where no byte-order mark says it; where neither does, UTF-8.

    Raises:
        OptionError: if there is no such encoding.
        DataError: within it, if the file is damaged or holds something else than text, a line is longer than
            `LONGEST_LINE`, or what is packed is so much that it can only be meant to fill the disk.
    """
    with _open(path) as stream:
        try:
            start = stream.read(4)
            stream.seek(0)
            marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
            given = "utf-8" if encoding is None else _known(encoding)
            with TextIOWrapper(stream, encoding=marked or given, newline="") as text:
                yield _lines(text, path)
        except UnicodeDecodeError as error:
            place, byte = _find(path, error)
            raise DataError(
                f"{path}{place}: the byte {byte} is no {error.encoding.upper()} text.\n"
                "Say how it is encoded, such as --encoding cp1252, or save it as UTF-8."
            ) from None
        except (EOFError, MemoryError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, and not of what is packed
            reason = "it asks for more memory than there is" if isinstance(error, MemoryError) else error
            raise DataError(f"{path} cannot be unpacked: {reason}.\nIt is damaged, or not whole.") from None


def suffix_of(path: Path) -> str:
    """The end of a file's name that tells its format, in lower case, without that of its packing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> Packed:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
    return path.open("rb")


def _lines(stream: TextIOWrapper, path: Path) -> Iterator[str]:
    most = max(_UNPACKED, _RATIO * path.stat().st_size) if path.suffix.lower() in PACKED else None
    letters = 0
    for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), ""), 1):
        letters += len(line)
        if most is not None and letters > most:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes and unpacks to more than {most:,} letters, as no data do.\n"
                "If they are yours and you have the room, unpack the file and give what comes out."
            )
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}, line {number} has {LONGEST_LINE:,} letters or more, which is no line of a table.")
        if "\0" in line:
            # Every other byte of most texts in UTF-16 is zero.
            wide = 3 * line.count("\0") > len(line)
            hint = "\nIf it is UTF-16 without a mark, say so: --encoding utf-16-le" if wide else ""
            raise DataError(f"{path}, line {number} is no text: it holds zero bytes.{hint}")
        yield line


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise OptionError(
            f"There is no encoding {quote(encoding)}.\nUsual ones are utf-8, utf-16, cp1252, latin-1 and gb18030."
        ) from None


def _find(path: Path, error: UnicodeDecodeError) -> tuple[str, str]:
    """Where the byte stands, as far as it can be told, and the byte."""
    if not error.encoding.startswith("utf-16"):
        with _open(path) as stream:
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), 1):
                try:
                    line.decode(error.encoding)
                except UnicodeDecodeError as found:
                    return f", line {number}", f"0x{line[found.start]:02x}"
    return "", f"0x{error.object[error.start]:02x}"
