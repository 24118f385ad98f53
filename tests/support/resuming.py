"""What the tests of resuming share: data, a way to kill a run, and all that one ends with as sums."""

from __future__ import annotations

import hashlib
import json
import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetuner_core.training.keeping import Keeping
from finetuner_core.training.state import TrainingState

KILLED = 99


def watch(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Each run of `fit` with a folder leaves here the sums of its state after its last step."""
    endings: list[dict[str, str]] = []
    end = Keeping.end
    restore = Keeping.restore
    states: dict[int, TrainingState] = {}

    def remember(self: Keeping, state: TrainingState) -> None:
        states[id(self)] = state
        restore(self, state)

    def summed(self: Keeping) -> None:
        endings.append(sums(states.pop(id(self))))
        end(self)

    monkeypatch.setattr(Keeping, "restore", remember)
    monkeypatch.setattr(Keeping, "end", summed)
    return endings


def sums(state: TrainingState) -> dict[str, str]:
    """Weights, moments, what the loss remembers, random states, position, order, history but for seconds."""
    found = {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()
        for name, tensor in state.tensors().items()
    }
    numbers = state.numbers()
    return found | {name: _sum(without_time(value)) for name, value in numbers.items()}


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_time(v) for k, v in value.items() if k not in ("seconds", "items_per_second", "started")}
    return [without_time(v) for v in value] if isinstance(value, list | tuple) else value


def _sum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def saved(out: Path) -> dict[str, str]:
    """Sums of the files of a saved model and its run, but for times, paths and the log."""
    found = {}
    for file in sorted(out.rglob("*")):
        name = str(file.relative_to(out))
        if file.is_dir() or name in ("run/log.txt", "run/run.json"):
            continue
        if name == "run/metrics.jsonl":
            found[name] = _sum([without_time(json.loads(line)) for line in file.read_text().splitlines()])
        elif file.suffix == ".json":
            found[name] = _sum(without_time(json.loads(file.read_text())))
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def in_child(work: Callable[[], object]) -> int:
    """Runs something in a forked process, as if it were killed at its end; its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_after(step: int) -> None:
    """Has this process end right after a step, before anything more than its line is written."""
    note = Keeping.note

    def noted(self: Keeping, position: Any, *rest: Any) -> None:
        note(self, position, *rest)
        if position.done == step:
            os._exit(KILLED)

    Keeping.note = noted  # type: ignore[assignment,method-assign]


def _noisy(signal: str, drawn: random.Random) -> str:
    letters = list(signal * 2 + "".join(drawn.choices(string.ascii_lowercase, k=8)))
    drawn.shuffle(letters)
    return "".join(letters)


def _table(file: Path, rows: list[list[str]]) -> Path:
    file.write_text("".join(",".join(row) + "\n" for row in rows))
    return file


_SIGNALS = [first + second for first in string.ascii_uppercase for second in "PQRS"]


def labelled_texts(folder: Path) -> Path:
    drawn = random.Random(0)
    rows = [[_noisy(signal, drawn), signal] for signal in _SIGNALS[:10] for _ in range(8)]
    return _table(folder / "texts.csv", [["text", "label"], *rows])


def text_pairs(folder: Path) -> Path:
    drawn = random.Random(0)
    rows = [[_noisy(signal, drawn), _noisy(signal, drawn)] for signal in _SIGNALS[:100]]
    return _table(folder / "pairs.csv", [["anchor", "positive"], *rows])


def scored_pairs(folder: Path) -> Path:
    drawn = random.Random(0)
    rows = [[_noisy(signal, drawn), _noisy(drawn.choice(_SIGNALS), drawn), str(drawn.random())] for signal in _SIGNALS]
    return _table(folder / "scored.csv", [["sentence1", "sentence2", "score"], *rows])


def image_folder(folder: Path) -> Path:
    drawn = np.random.default_rng(0)
    for label in range(6):
        (folder / "images" / str(label)).mkdir(parents=True)
        for number in range(10):
            pixels = drawn.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / str(label) / f"{number}.png")
    return folder / "images"


def vectors(folder: Path) -> Path:
    drawn = np.random.default_rng(0)
    np.savez(folder / "vectors.npz", vectors=drawn.normal(size=(80, 10)), labels=np.repeat(np.arange(8), 10))
    return folder / "vectors.npz"
