"""A lock that one process at a time holds, and that the system takes from one that died."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import BinaryIO

from finetuner_core.errors import FolderError
from finetuner_core.untrusted import read_json

# Windows locks bytes, which nobody else may then read: one that is far behind what the file says.
_FAR = 2**30


class Lock:
    """The lock of a folder: a file in it that names who holds it.

    Args:
        file: its place.

    Raises:
        FolderError: if another process holds it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        while True:
            stream = file.open("a+b")
            try:
                _take(stream)
            except OSError:
                stream.close()
                raise FolderError(
                    f"{file.parent} is in use: {_holder(file)}.\nWait until that run has ended, or take another --out."
                ) from None
            if _is_there(stream, file):
                break
            stream.close()  # whoever held it has removed the file meanwhile
        self._stream = stream
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": platform.node(), "started": started}
        stream.truncate(0)
        stream.write(json.dumps(holder).encode())
        stream.flush()

    def release(self) -> None:
        """Lets others have it."""
        self._stream.close()


def _is_there(stream: BinaryIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        holder = read_json(file)
        return f"by process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by another process"


if sys.platform == "win32":
    import msvcrt

    def _take(stream: BinaryIO) -> None:
        stream.seek(_FAR)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        stream.seek(0)

else:
    import fcntl

    def _take(stream: BinaryIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
