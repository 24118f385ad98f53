"""The store: what is written whole is there, and nothing else ever is."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.training.frozen.store import KEY_BYTES, Records, Segment, Store, UnwritableError


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "little")


def record(number: int) -> np.ndarray:
    return np.full(number % 7, number % 256, np.uint8)


def write(folder: Path, numbers: range) -> None:
    with Segment(Store(folder)) as segment:
        for number in numbers:
            segment.add(key(number), record(number))


def read(folder: Path) -> dict[bytes, bytes]:
    store = Store(folder)
    return {own: store.read(place).tobytes() for own, place in store.places.items()}


def expected(numbers: range) -> dict[bytes, bytes]:
    return {key(number): record(number).tobytes() for number in numbers}


def test_records_of_several_runs_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "new", range(10))
    write(tmp_path / "new", range(5, 20))
    assert read(tmp_path / "new") == expected(range(20))


def test_a_run_that_computes_nothing_leaves_no_file(tmp_path: Path) -> None:
    write(tmp_path / "new", range(0))
    assert not (tmp_path / "new").exists()
    assert len(Store(tmp_path / "new")) == 0


def test_records_of_no_bytes_alone_are_read_back(tmp_path: Path) -> None:
    write(tmp_path, range(0, 14, 7))
    assert read(tmp_path) == {key(0): b"", key(7): b""}


def test_what_was_written_before_an_interruption_is_kept(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Segment(Store(tmp_path)) as segment:
            segment.add(key(3), record(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(tmp_path) == expected(range(3, 4))


def test_what_was_being_written_when_the_process_died_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    segment = Segment(Store(tmp_path))
    segment.add(key(9), record(9))
    assert segment._file is not None
    segment._file.close()
    assert read(tmp_path) == expected(range(3))
    # Its bytes have their name already, and its index has not.
    next(tmp_path.glob(".*.features")).rename(tmp_path / "dead.features")
    assert read(tmp_path) == expected(range(3))


@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_what_was_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    write(tmp_path, range(3))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        write = flush = close = full

    if at == "write":
        monkeypatch.setattr(Path, "open", lambda *_: Full())
    elif at == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(UnwritableError, match=f"the disk of {tmp_path} is full"):
        write(tmp_path, range(9))
    monkeypatch.undo()
    assert read(tmp_path) == expected(range(3))
    assert len(list(tmp_path.iterdir())) == 2


def test_another_reason_than_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="file/folder cannot be written: Not a directory"):
        write(tmp_path / "file" / "folder", range(9))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", "damaged"),
        ("changed", "damaged"),
        ("empty", ""),
        ("no header", "damaged"),
        ("version", "written in format 0, and this version reads format 1"),
        ("bytes missing", "not as long as its index says"),
        ("no bytes", "No such file"),
    ],
)
def test_a_segment_that_is_not_whole_is_not_used_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, reason: str
) -> None:
    write(tmp_path, range(3))
    (good,) = tmp_path.glob("*.index")
    write(tmp_path, range(3, 9))
    (index,) = {*tmp_path.glob("*.index")} - {good}
    content, data = index.read_bytes(), index.with_suffix(".features")
    header, _, entries = content.partition(b"\n")
    if damage == "cut":
        index.write_bytes(content[:-5])
    elif damage == "changed":
        index.write_bytes(content[:-1] + b"\x01")
    elif damage == "empty":
        index.write_bytes(b"")
    elif damage == "no header":
        index.write_bytes(b"[]\n" + entries)
    elif damage == "version":
        index.write_bytes(json.dumps(json.loads(header) | {"version": 0}).encode() + b"\n" + entries)
    elif damage == "bytes missing":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.unlink()
    with caplog.at_level(logging.WARNING, "finetuner"):
        assert read(tmp_path) == expected(range(3))
    (said,) = caplog.messages
    assert said.startswith(f"Features in {index} are not used and computed anew: ")
    assert reason in said


def test_two_processes_write_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranges = (range(0, 3000), range(1000, 4000))
    processes = [context.Process(target=write, args=(tmp_path, own)) for own in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert read(tmp_path) == expected(range(4000))


def test_rows_find_the_records_of_their_items(tmp_path: Path) -> None:
    write(tmp_path, range(6))
    store = Store(tmp_path)
    records = Records(store, [[key(1), key(2)], [key(4), key(5)]], np.array([0, 1, 0]))
    assert records.views == 2
    found = [[records.read(row, view).tobytes() for row in range(3)] for view in range(2)]
    assert found == [[record(number).tobytes() for number in own] for own in ([1, 2, 1], [4, 5, 4])]
