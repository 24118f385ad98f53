"""Reading without warnings, in one thread of several."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


class _WhereUnwanted(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return getattr(_here, "unwanted", False)


class _Any(Warning, metaclass=_WhereUnwanted):
    """Every warning is one of these in a thread that wants none, and no warning in any other thread."""


@contextmanager
def without_warnings() -> Iterator[None]:
    """Within it nothing that this thread does warns; other threads warn as they did.

    The filters of warnings are the process's. `warnings.catch_warnings` puts back the list that it found, so that of
    two threads which overlap the second one to leave puts back what the first one had set, for good. Here one filter
    stands before all others, for good as well, and asks in which thread it is: what it finds elsewhere it leaves alone.
    """
    before = getattr(_here, "unwanted", False)
    _here.unwanted = True
    try:
        if not warnings.filters or warnings.filters[0][2] is not _Any:
            warnings.simplefilter("ignore", _Any)
        yield
    finally:
        _here.unwanted = before
