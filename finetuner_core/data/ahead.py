"""Preparing ahead: while the network computes, threads make ready what it gets next."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")

SPARE = 2
"""How many results may wait beside one for each worker."""


def prepare_ahead(work: Iterable[T], prepare: Callable[[T], P], workers: int) -> Ahead[P]:
    """The results of `prepare`, in the order of `work`, computed by threads before they are asked for.

    Threads and not processes, since tokenising, decoding and resizing release Python's lock: see
    `docs/adr/0014-threads-prepare-ahead.md`. `work` itself is gone through in the thread that asks for the results, and
    no further than `workers + SPARE` of them.

    Where it may be left early, by a break, an error or Ctrl-C, it stands in a `with`: at its end each thread has ended,
    after what it was just at.

        with prepare_ahead(batches, prepare, workers=2) as ahead:
            for prepared in ahead:
                ...

    Args:
        work: what results are made of.
        prepare: makes one; called by several threads at once.
        workers: how many threads; with 0 each result is computed when it is asked for, by who asks.

    Returns:
        An iterator. What `prepare` raises is raised where its result would have come, with the lines where it arose,
        and the next results follow. What `work` raises is raised after the results of what it gave, and ends it.

    Raises:
        ValueError: if `workers` is negative.
    """
    if workers < 0:
        raise ValueError(f"workers={workers} is no number of threads: give 0, to prepare nothing ahead, or more.")
    return Ahead(work, prepare, workers)


class Ahead(Generic[P]):
    """What `prepare_ahead` gives: an iterator that can be closed."""

    def __init__(self, work: Iterable[T], prepare: Callable[[T], P], workers: int) -> None:
        self._work: Iterator[Any] = iter(work)
        self._prepare: Callable[[Any], P] = prepare
        self._waiting: deque[Future[P]] = deque()
        self._bound = workers + SPARE
        self._pool = ThreadPoolExecutor(workers, "finetuner-ahead") if workers else None
        # Also where it is dropped and not closed: the threads hold on to what they work on, and not to this.
        self._end = weakref.finalize(self, _end, self._pool)

    def __iter__(self) -> Iterator[P]:
        return self

    def __next__(self) -> P:
        if not self._end.alive:
            raise StopIteration
        if self._pool is None:
            return _result(self._prepare, next(self._work))
        while len(self._waiting) < self._bound:
            try:
                piece = next(self._work)
            except StopIteration:
                break
            except Exception as error:
                self._work = iter(())
                self._waiting.append(Future())
                self._waiting[-1].set_exception(error)
                break
            self._waiting.append(self._pool.submit(_result, self._prepare, piece))
        if not self._waiting:
            self.close()
            raise StopIteration
        return self._waiting.popleft().result()

    def __enter__(self) -> Ahead[P]:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it: what was not begun is dropped, what is underway is waited for, and its threads are gone."""
        self._waiting.clear()
        self._end()


def _result(prepare: Callable[[T], P], piece: T) -> P:
    try:
        return prepare(piece)
    except StopIteration as error:  # Out of an iterator it would be its end.
        raise RuntimeError("What prepares the items raised StopIteration.") from error


def _end(pool: ThreadPoolExecutor | None) -> None:
    if pool is not None:
        # Where one of its own threads collects it as garbage, that one cannot wait for itself.
        with suppress(RuntimeError):
            pool.shutdown(cancel_futures=True)
