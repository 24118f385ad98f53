"""Processes that take turns."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.speed.turns import ChildError, Player, Skipped

BEGIN = "import sys; from benchmarks.speed.turns import Turns; turns = Turns(sys.stdin, sys.stdout)\n"

Start = Callable[[str], Player]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    players: list[Player] = []

    def build(source: str) -> Player:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        players.append(Player([sys.executable, "-c", BEGIN + dedent(source)], environment, tmp_path))
        return players[-1]

    yield build
    for player in players:
        player.end()


def state(player: Player) -> str:
    """What the system says that the process does: `T` where it is stopped."""
    os.waitpid(player.process.pid, os.WUNTRACED | os.WNOHANG)
    return Path(f"/proc/{player.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_each_turn_is_one_step(start: Start) -> None:
    player = start("turns.ready(size=3)\nfor number in range(9):\n    turns.end(number=number)")

    assert player.start()["size"] == 3
    turns = [player.turn() for _ in range(4)]

    assert [turn["number"] for turn in turns] == [0, 1, 2, 3]
    for turn in turns:
        assert turn["seconds"] > 0
        assert turn["cpu"] >= 0
        assert turn["peak"] >= player.facts["base"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_between_its_turns_it_is_stopped(start: Start) -> None:
    player = start("turns.ready()\nwhile True: turns.end()")
    player.start()
    os.waitid(os.P_PID, player.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert state(player) == "T"

    player.turn()
    os.waitid(os.P_PID, player.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert state(player) == "T"


def test_it_ends_by_itself_when_nobody_wants_more(start: Start) -> None:
    player = start("turns.ready()\ntry:\n    while True: turns.end()\nfinally: print('cleaned up', file=sys.stderr)")
    player.start()
    player.turn()

    player.end()

    assert player.process.returncode == 0
    assert "cleaned up" in Path(player.errors.name).read_text()


def test_the_end_of_what_a_broken_child_said_is_kept(start: Start) -> None:
    player = start("turns.ready()\nraise RuntimeError('out of luck')")
    player.start()

    with pytest.raises(ChildError, match=r"(?s)ended with 1.*out of luck"):
        player.turn()


@pytest.mark.skipif(sys.platform != "linux", reason="the signal's number")
def test_a_child_that_was_killed_is_told_apart(start: Start) -> None:
    player = start("import os\nturns.ready()\nos.kill(os.getpid(), 9)")
    player.start()

    with pytest.raises(ChildError, match="too little memory"):
        player.turn()


def test_a_child_may_have_nothing_to_measure(start: Start) -> None:
    with pytest.raises(Skipped, match="no such setting"):
        start("turns.skip('no such setting')").start()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_what_workers_need_counts_as_well(start: Start) -> None:
    player = start(
        """
        import subprocess
        work = "block = bytearray(300 * 2**20); print(sum(range(3_000_000)), flush=True); input()"
        turns.ready()
        worker = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        worker.stdout.readline()
        turns.end()
        """
    )
    player.start()

    turn = player.turn()

    assert turn["peak"] - player.facts["base"] > 290 * 2**20
    assert turn["cpu"] > 0.01
