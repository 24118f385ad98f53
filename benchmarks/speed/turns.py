"""Processes that take turns: while one computes, the others are stopped, so that what else happens here hits all alike.

A child builds what it needs, says that it is ready, and then does one step, or one pass, each time that it is told to.
It measures that itself. Between its turns its whole process group is stopped by a signal, so that no thread or worker
of it prepares anything ahead on another's time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from benchmarks.speed.figures import Turn


class Turns:
    """The child's end.

    Args:
        told: where it is told to go on.
        tell: where it says what it did.
        device: what it computes on; on `cuda` the memory that counts is the accelerator's.
    """

    def __init__(self, told: IO[str], tell: IO[str], device: str = "cpu") -> None:
        self.told, self.tell, self.device = told, tell, device
        self._seconds = self._cpu = 0.0

    def ready(self, **facts: object) -> None:
        """What is built is built: waits for the first turn."""
        self._say({"kind": "ready", "base": self._memory(), **facts})
        self._wait()

    def end(self, **figures: object) -> None:
        """A turn is over: says what it took, and waits for the next one."""
        self._finish_device()
        seconds, cpu = time.perf_counter() - self._seconds, processor_seconds() - self._cpu
        self._say({"kind": "turn", "seconds": seconds, "cpu": cpu, "peak": self._memory(), **figures})
        self._wait()

    def skip(self, reason: str) -> NoReturn:
        """There is nothing to measure, and why."""
        self._say({"kind": "skipped", "reason": reason})
        raise SystemExit(0)

    def _wait(self) -> None:
        if not self.told.readline():  # the parent has all that it wants, or is gone
            raise SystemExit(0)
        self._seconds, self._cpu = time.perf_counter(), processor_seconds()

    def _say(self, message: dict[str, object]) -> None:
        self.tell.write(json.dumps(message) + "\n")
        self.tell.flush()

    def _finish_device(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()

    def _memory(self) -> int:
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.max_memory_allocated())
        return peak_memory()


def processor_seconds() -> float:
    """Processor time of this process and of all others of its group, those that ended within it included."""
    others = 0
    for pid in _group():
        if pid != os.getpid():
            with suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                others += int(fields[11]) + int(fields[12])
    ended = os.times()
    return (
        time.process_time()
        + ended.children_user
        + ended.children_system
        + (others / os.sysconf("SC_CLK_TCK") if others else 0)
    )


def peak_memory() -> int:
    """The most that this process had in memory so far, with the most that each other of its group had, in bytes."""
    sizes = []
    for pid in _group():
        with suppress(OSError, IndexError, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            sizes.append(int(status.split("VmHWM:")[1].split()[0]) * 1024)
    if sizes:
        return sum(sizes)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _group() -> Iterator[int]:
    """The processes of this one's group, where the system shows them as files."""
    own = os.getpgrp()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == own:
                yield int(folder.name)


class ChildError(Exception):
    """A child ended before its turn was over; the message is the end of what it said on stderr."""


class Skipped(Exception):  # noqa: N818 - it is no error
    """A child has nothing to measure; the message says why."""


class Player:
    """The parent's end: a child, and its turns so far.

    Args:
        command: what starts it.
        environment: what it sees.
        scratch: a folder for what it writes on stderr.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], scratch: Path) -> None:
        self.errors = tempfile.NamedTemporaryFile(dir=scratch, suffix=".log", delete=False)  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )
        self.facts: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Waits until it is built, and stops it.

        Raises:
            Skipped: if it has nothing to measure.
            ChildError: if it ended.
        """
        self.facts = self._read()
        self._signal(signal.SIGSTOP)
        return self.facts

    def turn(self) -> Turn:
        """One turn of it.

        Raises:
            ChildError: if it ended.
        """
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        figures = self._read()
        self._signal(signal.SIGSTOP)
        return figures

    def end(self) -> None:
        """Lets it end by itself, and ends it where it does not."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self._signal(signal.SIGCONT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)  # its group, with whatever workers are left
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._fail()
        message: dict[str, Any] = json.loads(line)
        if message["kind"] == "skipped":
            raise Skipped(message["reason"])
        return message

    def _fail(self) -> NoReturn:
        code = self.process.wait()
        said = Path(self.errors.name).read_text("utf-8", "replace").strip().splitlines()
        reason = f"ended with {code}" + (", killed: was there too little memory?" if code == -signal.SIGKILL else "")
        raise ChildError("\n".join([reason, *said[-15:]]))

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
