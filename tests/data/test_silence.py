from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from finetuner_core.data.silence import without_warnings

LONG = 20


def test_nothing_warns_within_and_all_does_after_it() -> None:
    with without_warnings():
        warnings.warn("one", UserWarning, stacklevel=1)
        with without_warnings():
            warnings.warn("two", ResourceWarning, stacklevel=1)
        warnings.warn("three", DeprecationWarning, stacklevel=1)
    for kind in (UserWarning, ResourceWarning, DeprecationWarning):
        with pytest.raises(kind):
            warnings.warn("four", kind, stacklevel=1)


def test_after_an_error_all_warns_again() -> None:
    with pytest.raises(KeyError), without_warnings():
        raise KeyError
    with pytest.raises(UserWarning):
        warnings.warn("one", UserWarning, stacklevel=1)


def test_other_threads_warn_as_they_did() -> None:
    within, seen = threading.Event(), threading.Event()

    def silent() -> None:
        with without_warnings():
            within.set()
            assert seen.wait(LONG)
            warnings.warn("one", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(silent)
        assert within.wait(LONG)
        with pytest.raises(UserWarning):
            warnings.warn("two", UserWarning, stacklevel=1)
        seen.set()
        thread.result(LONG)


def test_threads_that_overlap_leave_the_filters_as_they_were() -> None:
    """With `warnings.catch_warnings` the second one to leave would put back what the first one had set."""
    turns = [threading.Event() for _ in range(3)]

    def first() -> None:
        with without_warnings():
            turns[0].set()
            assert turns[1].wait(LONG)
        turns[2].set()

    def second() -> None:
        assert turns[0].wait(LONG)
        with without_warnings():
            turns[1].set()
            assert turns[2].wait(LONG)

    with without_warnings():
        pass
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        for thread in (pool.submit(first), pool.submit(second)):
            thread.result(LONG)
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning):
        warnings.warn("one", UserWarning, stacklevel=1)


def test_stands_before_filters_that_were_set_later() -> None:
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with without_warnings():
                warnings.warn("one", UserWarning, stacklevel=1)
            with pytest.raises(UserWarning):
                warnings.warn("two", UserWarning, stacklevel=1)


def test_adds_one_filter_and_no_more() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        for _ in range(5):
            with without_warnings():
                pass
        added = list(warnings.filters)[: len(warnings.filters) - len(before)]
        assert list(warnings.filters)[len(added) :] == before
        assert len(added) <= 1
