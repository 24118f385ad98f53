"""Sees who asks the network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, NoReturn
from unittest import mock


@contextlib.contextmanager
def watched_network() -> Iterator[list[str]]:
    """Within it nobody reaches another machine through Python's sockets; whoever tries is noted.

    Yields:
        What was asked for, one entry for each attempt. Sockets between processes of one machine are left alone, and
        what a compiled library opens by itself is not seen.
    """
    attempts: list[str] = []

    def refuse(what: str) -> NoReturn:
        attempts.append(what)
        raise OSError(f"finetuner_core.testing lets nobody ask the network, and {what} was asked for")

    def connect(original: Any) -> Any:
        def replacement(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(":".join(map(str, address[:2])))
            return original(self, address)

        return replacement

    with contextlib.ExitStack() as stack:
        for name in ("connect", "connect_ex"):
            original = getattr(socket.socket, name)
            stack.enter_context(mock.patch.object(socket.socket, name, connect(original)))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            stack.enter_context(mock.patch.object(socket, name, lambda host, *rest, **named: refuse(str(host))))
        yield attempts
