"""Archives of numpy's arrays (`.npz`), mapped into memory where they are not packed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError
from finetuner_core.values import listed, quote

_AT_ONCE = 1 << 20

# Bytes that any packed archive may have in memory; beyond, a hundred times its own.
_UNPACKED, _RATIO = 1 << 30, 100


def read(path: Path) -> Table:
    """Reads an `.npz` archive; what `numpy.savez` wrote stays in its file until it is asked for.

    Every byte is read once to see whether it is whole.

    Raises:
        DataError: if it is damaged, or holds anything but arrays of numbers and texts with one length.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(
            f"{path} is an array without a name.\n"
            f"Name it: numpy.savez({quote(path.with_suffix('.npz').name)}, vectors=numpy.load({quote(path.name)}))"
        )
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive, or not a whole one.\nnumpy.savez(path, vectors=...) writes one.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, archive)
            found = {member.filename: _array(path, archive, member) for member in archive.infolist()}
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each raise their own kinds for a file that is damaged
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"{path} cannot be read as .npz: {reason}\n"
            "It must hold arrays of numbers or texts; labels.astype(str) makes texts of objects."
        ) from None
    arrays = {name.removesuffix(".npy"): array for name, array in found.items() if array is not None and array.ndim}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: its arrays must have one length, not {lengths or 'none'}.")
    if not any(lengths.values()):
        raise DataError(f"{path} has arrays ({listed(lengths)}) and no rows.")
    return Table(path, {name: _texts(array) for name, array in arrays.items()})


def _texts(array: np.ndarray) -> np.ndarray:
    """Letters of one byte each, and dates, as texts; anything else as it is."""
    if array.dtype.kind in "mM":
        return array.astype(str)
    try:
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError:  # they are bytes, then
        return array


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray | None:
    """An array; None where a member is something else, which zipfile knows by the name where the member begins."""
    with archive.open(member) as stream:
        if not member.filename.endswith(".npy"):
            return None
        version = npy.read_magic(stream)
        if member.compress_type == zipfile.ZIP_STORED and version in ((1, 0), (2, 0)):
            array = _map(path, member, stream, version)
            if array is not None:
                return array
    with archive.open(member) as stream:
        _check_shape(member, stream)
    with archive.open(member) as stream:
        # Without pickles nothing in the archive can run.
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses an archive that unpacks to much more than any numbers do: packed arrays are unpacked into memory."""
    size, most = path.stat().st_size, max(_UNPACKED, _RATIO * path.stat().st_size)
    packed = sum(member.file_size for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED)
    if packed > most:
        raise DataError(
            f"{path} has {size:,} bytes and unpacks to {packed:,} in memory, where {most:,} are allowed.\n"
            "If they are yours, write them with numpy.savez, which does not pack: they then stay on the disk."
        )


def _check_shape(member: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    """Refuses a shape for which the member has not the bytes, before there is memory for it."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        return  # of names beyond Latin-1, which numpy reads itself
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if not dtype.hasobject and stream.tell() + size != member.file_size:
        raise ValueError(f"{member.filename} has {member.file_size - stream.tell():,} bytes, its shape needs {size:,}")


def _map(path: Path, member: zipfile.ZipInfo, stream: IO[bytes], version: tuple[int, int]) -> np.ndarray | None:
    """An array where it lies in the archive; None where it has no rows, or holds Python's objects."""
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = header(stream)
    start, size = stream.tell(), dtype.itemsize * int(np.prod(shape, dtype=object))
    if dtype.hasobject or not size:
        return None
    if start + size != member.file_size:
        raise ValueError(f"{member.filename} has {member.file_size - start:,} bytes where its shape needs {size:,}")
    while stream.read(_AT_ONCE):
        pass  # to its end, where zipfile compares the checksum
    with path.open("rb") as file:
        # A member begins after its name and what may follow that (PKWARE's APPNOTE.TXT, 4.3.7).
        file.seek(member.header_offset + 26)
        offset = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + start
    return np.asarray(np.memmap(path, dtype, "r", offset, shape, "F" if by_columns else "C"))
