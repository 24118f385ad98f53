"""Memory that training gave back and will want again in the next step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Has the C library keep what is freed, instead of giving it back to the system and asking for it again.

    A step allocates and frees the same large tensors as the one before. By default each comes from the system anew,
    page by page and filled with zeros, which takes a tenth of the time of a step and does not run on two cores at once.
    Only glibc has these settings (mallopt(3)); elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
