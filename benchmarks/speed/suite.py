"""What every row has in common: sides that take turns, and what is said of them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.figures import Turn, fastest, peak, per_second, ratios, spread
from benchmarks.speed.pairs import Pair
from benchmarks.speed.table import megabytes, short, table, with_range
from benchmarks.speed.turns import ChildError, Player, Skipped
from benchmarks.speed.work import Work

FASTEST = "the fastest of the others"


@dataclass(frozen=True)
class Side:
    """One that takes part.

    Args:
        name: in tables. Finetuner's own begin with `finetuner`.
        run: the module and function that it runs.
        settings: what the function is told.
        bfloat16: whether it makes sense only where the hardware multiplies in bfloat16.
    """

    name: str
    run: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bfloat16: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it is Finetuner."""
        return self.name.startswith("finetuner")


@dataclass(frozen=True)
class Against:
    """Two sides to be compared.

    Args:
        ours: the name of one.
        theirs: the name of the other, or `FASTEST`.
        target: how many times as fast the first one is meant to be.
        memory: which share of the other's memory it is meant to need at most.
    """

    ours: str
    theirs: str
    target: float | None = None
    memory: float | None = None


@dataclass
class Outcome:
    """What came of a side: its turns, or why there are none."""

    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """What a row has to say, in Markdown and as records for JSON lines."""

    text: str
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """How the suite was asked to run.

    Args:
        quick: whether the smallest sizes are enough, to see that everything runs.
        rounds: how many rounds count; what each row finds right where `None`.
        threads: of each side.
        device: what is computed on.
        bfloat16: whether sides that need hardware for it take part.
        text_model: the folder or name of the text model.
        pairs: pairs to take instead of those of the installed sources.
        scratch: a folder for what is written in between.
    """

    quick: bool
    rounds: int | None
    threads: int
    device: str
    bfloat16: bool
    text_model: str
    pairs: list[Pair] | None
    scratch: Path

    def size(self, usual: int, quick: int) -> int:
        """A size, or the small one."""
        return quick if self.quick else usual


def play(
    options: Options, sides: Sequence[Side], work: Work, *, rounds: int, fresh: bool = False, warm: int = 1
) -> dict[str, Outcome]:
    """Lets sides take turns, and collects their figures.

    Args:
        options: of the suite.
        sides: who takes part, in the order of their turns.
        work: what they do.
        rounds: how many turns of each count, where the options do not say.
        fresh: whether each turn is a new process with an empty cache; nothing is warm then.
        warm: how many turns before them do not count.
    """
    rounds = options.rounds or (1 if options.quick else rounds)
    outcomes = {side.name: Outcome() for side in sides}
    able = [side for side in sides if options.bfloat16 or not side.bfloat16]
    for side in sides:
        if side not in able:
            outcomes[
                side.name
            ].problem = "skipped: no hardware here multiplies in bfloat16 (--bf16 runs it all the same)"
    path = work.write(Path(tempfile.mkstemp(dir=options.scratch, suffix=".json")[1]))
    if fresh:
        for number in range(rounds):
            for side in able:
                _turns(options, [side], outcomes, path, 1, 0, f"run {number + 1} of {rounds}")
    else:
        _turns(options, able, outcomes, path, rounds, warm)
    return outcomes


def _turns(
    options: Options,
    sides: Sequence[Side],
    outcomes: Mapping[str, Outcome],
    work: Path,
    rounds: int,
    warm: int,
    where: str | None = None,
) -> None:
    players: dict[str, Player] = {}
    try:
        for side in sides:
            if outcomes[side.name].problem is None:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.speed.child",
                    side.run,
                    str(work),
                    json.dumps(side.settings),
                ]
                players[side.name] = Player(command, _environment(options), options.scratch)
                _guarded(players, side.name, outcomes, lambda player, own: own.facts.update(player.start()))
        for number in range(warm + rounds):
            for name in list(players):
                if number < warm:
                    _guarded(players, name, outcomes, lambda player, own: player.turn())
                else:
                    _guarded(players, name, outcomes, lambda player, own: own.turns.append(player.turn()))
                    said = f"{where or f'round {number + 1 - warm} of {rounds}'}: {name}"
                    _tell(said, outcomes[name])
    finally:
        for player in players.values():
            player.end()


def _guarded(players: dict[str, Player], name: str, outcomes: Mapping[str, Outcome], act: Any) -> None:
    """Whoever cannot go on leaves the others to play."""
    try:
        act(players[name], outcomes[name])
    except Skipped as reason:
        outcomes[name].problem = f"skipped: {reason}"
    except ChildError as error:
        outcomes[name].problem = f"failed: {str(error).splitlines()[0]}"
        print(f"{name}: {error}", file=sys.stderr)
    else:
        return
    outcomes[name].turns.clear()
    players.pop(name).end()


def _environment(options: Options) -> dict[str, str]:
    """The same for everyone, with caches of its own that are empty."""
    scratch = tempfile.mkdtemp(dir=options.scratch)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    threads = dict.fromkeys(names, str(options.threads))
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**os.environ, **threads, **quiet, "TMPDIR": scratch, "XDG_CACHE_HOME": scratch}


def _tell(where: str, outcome: Outcome) -> None:
    if outcome.turns:
        print(f"{where}, {outcome.turns[-1]['seconds']:.2f} s", file=sys.stderr, flush=True)


def describe(
    name: str,
    title: str,
    outcomes: Mapping[str, Outcome],
    against: Sequence[Against],
    *,
    unit: str = "items",
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> Report:
    """The two tables of a row: what each side took, and how they compare.

    Args:
        name: of the row.
        title: what it is about.
        outcomes: what came of each side.
        against: what is compared.
        unit: what the sides count.
        extra: further columns, each with a cell for some of the sides.
    """
    extra = extra or {}
    rows = []
    for side, own in outcomes.items():
        if own.problem is not None or not own.turns:
            rows.append([side, own.problem or "no turn", *[""] * (3 + len(extra))])
            continue
        seconds = spread([turn["seconds"] for turn in own.turns])
        cpu = spread([turn["cpu"] for turn in own.turns])
        rows.append(
            [
                side,
                with_range(seconds),
                short(per_second(own.turns, "items")),
                short(cpu.median),
                megabytes(peak(own.turns)),
                *(column.get(side, "") for column in extra.values()),
            ]
        )
    header = ["side", "seconds, median (range)", f"{unit} / s", "CPU-s", "peak MB", *extra]
    compared = [found for each in against if (found := compare(outcomes, each)) is not None]
    text = f"**{title}**\n\n{table(header, rows)}"
    if compared:
        text += f"\n\n{comparison_table(compared)}"
    records: list[dict[str, Any]] = [
        {"row": name, "side": side, "facts": own.facts, "turns": own.turns, "problem": own.problem}
        for side, own in outcomes.items()
    ]
    return Report(text, records + [{"row": name, **each} for each in compared])


def compare(outcomes: Mapping[str, Outcome], against: Against) -> dict[str, Any] | None:
    """How two sides compare, or `None` where one of them has no turns."""
    turns = {name: own.turns for name, own in outcomes.items() if own.turns}
    theirs = against.theirs
    if theirs == FASTEST:
        others = {name: own for name, own in turns.items() if not name.startswith("finetuner")}
        theirs = fastest(others) if others else ""
    if against.ours not in turns or theirs not in turns:
        return None
    ours, other = turns[against.ours], turns[theirs]
    return {
        "ours": against.ours,
        "theirs": theirs,
        "fastest": against.theirs == FASTEST,
        "seconds": ratios(other, ours, "seconds"),
        "cpu": ratios(other, ours, "cpu"),
        "memory": peak(ours) / peak(other),
        "target": against.target,
        "memory_target": against.memory,
    }


def comparison_table(compared: Sequence[Mapping[str, Any]]) -> str:
    """The comparisons of a row."""
    rows = []
    for each in compared:
        targets = [
            f"≥ {each['target']:g}" if each["target"] else "",
            f"memory ≤ {each['memory_target']:.2f}" if each["memory_target"] else "",
        ]
        rows.append(
            [
                each["ours"],
                f"{each['theirs']}{', the fastest' if each['fastest'] else ''}",
                with_range(each["seconds"]),
                with_range(each["cpu"]),
                short(each["memory"]),
                ", ".join(filter(None, targets)),
            ]
        )
    return table(["of", "against", "times as fast (range)", "by CPU-s", "memory, share", "target"], rows)
