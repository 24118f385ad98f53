"""One side of a comparison, in a process of its own: `python -m benchmarks.speed.child ours:train WORK.json '{}'`."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed.turns import Turns
from benchmarks.speed.work import Work

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs what is named by module and function."""
    _die_with_parent()
    name, path, settings = sys.argv[1:]
    # What libraries print must not come between what the parent reads.
    tell = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work = Work.read(Path(path))
    turns = Turns(sys.stdin, tell, work.device)
    module, _, function = name.partition(":")
    run: Callable[..., None] = getattr(importlib.import_module(f"benchmarks.speed.{module}"), function)
    run(turns, work, **json.loads(settings))


def _die_with_parent() -> None:
    """A parent that was killed cannot end its children, and one that is stopped would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":  # workers that are spawned import this file again
    main()
