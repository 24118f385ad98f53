"""What the tests of hostile artefacts share: a watch over the process, a bomb, and what a refusal has to be."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetuner_core.cli import cli
from finetuner_core.errors import FinetunerError

# What code that came with an artefact would have to do to be of use to whoever sent it. Python tells of these itself,
# also where C does them (https://docs.python.org/3/library/audit_events.html).
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pickle.find_class",
)
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")

_seen: list[str] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event.startswith((*FORBIDDEN, *NETWORK)):
        _seen.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_listen)


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    """Nothing is started, unpickled, or asked of the network in any of these tests."""
    global _seen
    seen: list[str] = []
    _seen = seen
    yield
    _seen = None
    assert seen == []


class Bomb:
    """What a pickle with it in does when it is read: it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    canary = tmp_path / "canary"
    yield Bomb(canary)
    assert not canary.exists(), "code that a file brought was run"


@contextmanager
def refused(*expected: str, most: int = 1 << 25) -> Iterator[None]:
    """Within it an error for people is raised, that says so much, and Python holds no more than so many bytes more."""
    tracemalloc.start()
    try:
        with pytest.raises(FinetunerError) as error:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = str(error.value)
    for text in expected:
        assert text in said, said
    assert len(said.splitlines()) <= 2, said
    assert len(said) < 2000, said
    assert peak < most, f"{peak:,} bytes"


def refused_by_command(*arguments: object) -> str:
    """What a command says where it ends with code 2 and without a traceback."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
    assert all(letter.isprintable() or letter in "\n\t" for letter in result.output), result.output
    return result.stderr
