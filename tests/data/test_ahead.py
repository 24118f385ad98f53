from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import suppress
from textwrap import dedent

import pytest

from finetuner_core.data.ahead import SPARE, prepare_ahead

LONG = 20
"""Seconds after which a test that waits for another thread gives up."""


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_gives_the_results_in_the_order_of_the_work(workers: int, count: int) -> None:
    ahead = prepare_ahead(iter(range(count)), square, workers)
    assert list(ahead) == [number * number for number in range(count)]
    assert list(ahead) == []


def test_the_order_is_that_of_the_work_also_where_the_first_is_ready_last() -> None:
    done = {number: threading.Event() for number in range(4)}

    def backwards(number: int) -> int:
        if number < 3:
            assert done[number + 1].wait(LONG)
        done[number].set()
        return number

    assert list(prepare_ahead(range(4), backwards, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_is_ahead_by_no_more_than_the_bound(workers: int) -> None:
    begun: list[int] = []
    drawn: list[int] = []
    ready = threading.Semaphore(0)

    def work() -> Iterator[int]:
        for number in range(100):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(number)
            yield number

    def prepare(number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        begun.append(number)
        ready.release()
        return number

    with prepare_ahead(work(), prepare, workers) as ahead:
        assert (begun, drawn) == ([], [])
        for number in range(20):
            assert next(ahead) == number
            # All that may be ahead gets ready while nobody asks, and no more.
            assert all(ready.acquire(timeout=LONG) for _ in range(workers + SPARE if number == 0 else 1))
            assert drawn == list(range(number + workers + SPARE))
            assert sorted(begun) == drawn
    assert len(drawn) == 19 + workers + SPARE


def test_without_workers_all_is_done_when_it_is_asked_for() -> None:
    seen: list[tuple[str, int]] = []

    def work() -> Iterator[int]:
        for number in range(3):
            seen.append(("drawn", number))
            yield number

    def prepare(number: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        seen.append(("prepared", number))
        return number

    ahead = prepare_ahead(work(), prepare, 0)
    while (number := next(ahead, None)) is not None:
        seen.append(("taken", number))
    assert seen == [(what, number) for number in range(3) for what in ("drawn", "prepared", "taken")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_in_its_place_with_its_lines_and_the_rest_follows(workers: int) -> None:
    def breaks(number: int) -> int:
        if number % 3 == 1:
            raise KeyError(number)
        return number

    with prepare_ahead(range(8), breaks, workers) as ahead:
        for number in range(8):
            if number % 3 != 1:
                assert next(ahead) == number
                continue
            with pytest.raises(KeyError) as caught:
                next(ahead)
            assert caught.value.args == (number,)
            assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "raise KeyError(number)"
        assert next(ahead, None) is None


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_of_the_work_comes_after_what_it_gave(workers: int) -> None:
    def work() -> Iterator[int]:
        yield from range(2)
        raise OSError("the disk is gone")

    with prepare_ahead(work(), square, workers) as ahead:
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(OSError, match="the disk is gone"):
            next(ahead)
        assert next(ahead, None) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_raising_stop_iteration_is_no_end(workers: int) -> None:
    def stops(number: int) -> int:
        return next(iter(())) if number == 1 else number

    with prepare_ahead(range(3), stops, workers) as ahead:
        assert next(ahead) == 0
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            next(ahead)
        assert next(ahead) == 2


@pytest.mark.parametrize("how", ["break", "error", "dropped", "closed"])
def test_left_early_it_finishes_what_is_underway_and_begins_nothing(how: str) -> None:
    begun: list[int] = []
    taken, ended = threading.Event(), threading.Event()

    def prepare(number: int) -> int:
        begun.append(number)
        if number == 1:
            assert taken.wait(LONG)
            ended.set()
        return number

    def consume() -> None:
        if how in ("break", "error"):
            with prepare_ahead(range(100), prepare, 1) as ahead:
                for _ in ahead:
                    taken.set()
                    if how == "error":
                        raise ArithmeticError
                    break
        else:
            ahead = prepare_ahead(range(100), prepare, 1)
            assert next(ahead) == 0
            taken.set()
            if how == "closed":
                ahead.close()
                ahead.close()
                assert next(ahead, None) is None

    with suppress(ArithmeticError):
        consume()
    assert ended.is_set() or begun == [0]
    assert len(begun) <= 1 + SPARE + 1


def test_what_was_taken_is_held_by_nobody() -> None:
    class Result:
        pass

    with prepare_ahead(range(5), lambda number: Result(), 2) as ahead:
        for result in ahead:
            reference = weakref.ref(result)
            del result
            gc.collect()
            assert reference() is None


def test_a_number_of_workers_that_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"workers=-1 is no number of threads: give 0, to prepare nothing ahead, or more"
    ):
        prepare_ahead([], square, -1)


SCRIPT = """
    import sys, threading, time
    from finetuner_core.data.ahead import prepare_ahead

    def prepare(number):
        time.sleep(0.01)
        return number

    def endless():
        number = 0
        while True:
            yield number
            number += 1

    ahead = prepare_ahead(endless(), prepare, 2)
    how = sys.argv[1]
    if how == "dropped":
        next(ahead)  # and the interpreter ends with it
    elif how == "context":
        try:
            with ahead:
                for number in ahead:
                    print(number, flush=True)
        except KeyboardInterrupt:
            print("ended with", threading.active_count(), "thread")
    else:
        for number in ahead:
            print(number, flush=True)
"""


@pytest.mark.parametrize("how", ["dropped", "context", "uncaught"])
def test_neither_ctrl_c_nor_the_end_of_the_interpreter_hangs(how: str) -> None:
    command = [sys.executable, "-c", dedent(SCRIPT), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if how != "dropped":
                assert process.stdout.readline() == "0\n"
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    if how == "uncaught":
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert process.returncode in (-signal.SIGINT, 130)
    else:
        assert (process.returncode, err) == (0, "")
        assert how == "dropped" or out.endswith("ended with 1 thread\n")
