"""Who is at a run: asked without taking its lock."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, BinaryIO

_LARGEST = 4096


def holder(file: Path) -> str | None:
    """Which process holds the lock of a run, in words; `None` where none does."""
    try:
        with file.open("rb") as stream:
            said = _read(stream)
            # Of a process that is gone it need not be tried, which would keep others from it for an instant.
            if said.get("host") == platform.node() and _is_gone(said.get("pid")):
                return None
            return _words(said) if _is_held(stream) else None
    except OSError:
        return None


def _words(said: dict[str, Any]) -> str:
    pid, host = said.get("pid"), said.get("host")
    return (
        f"pid {pid}" + (f" on {host}" if host != platform.node() else "") if type(pid) is int else "by another process"
    )


def _read(stream: BinaryIO) -> dict[str, Any]:
    try:
        said = json.loads(stream.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


if sys.platform == "win32":
    import msvcrt

    _FAR = 2**30  # where finetuner_core.training.lock locks a byte, which nobody else may then read

    def _is_gone(pid: object) -> bool:
        return False  # to ask a process of Windows would end it

    def _is_held(stream: BinaryIO) -> bool:
        stream.seek(_FAR)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)
        except OSError:
            return True
        return False

else:
    import fcntl

    def _is_gone(pid: object) -> bool:
        if type(pid) is not int or pid <= 0:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False

    def _is_held(stream: BinaryIO) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a disk that knows no locks
            return False
        return False
