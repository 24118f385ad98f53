"""Memory that training gave back and will want again in the next step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1
_USUAL = 128 * 1024


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, the C library keeps what is freed, instead of giving it back to the system and asking for it again.

    A step allocates and frees the same large tensors as the one before. By default each comes from the system anew,
    page by page and filled with zeros, which takes some five hundredths of a step. Only glibc has these settings
    (mallopt(3)); elsewhere nothing happens. They are the process's, and afterwards they are the usual ones again: other
    libraries count on zeros that cost nothing.
    """
    _set_thresholds(_LARGEST)
    try:
        yield
    finally:
        _set_thresholds(_USUAL)


def _set_thresholds(size: int) -> None:
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_THRESHOLD, size)
        library.mallopt(_M_TRIM_THRESHOLD, size)
