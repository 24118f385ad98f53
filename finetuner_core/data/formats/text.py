"""Files of text: packed or not, in whatever encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import quote

PACKED = (".gz", ".bz2", ".xz")

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
        DataError: within it, if the file is damaged or holds something else than text.
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
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, and not of what is packed
            raise DataError(f"{path} cannot be unpacked: {error}.\nIt is damaged, or not whole.") from None


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
    for number, line in enumerate(stream, 1):
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
            for number, line in enumerate(stream, 1):
                try:
                    line.decode(error.encoding)
                except UnicodeDecodeError as found:
                    return f", line {number}", f"0x{line[found.start]:02x}"
    return "", f"0x{error.object[error.start]:02x}"
