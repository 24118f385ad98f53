"""A request to end a run: by Ctrl-C, by SIGTERM, or because its time is up."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

OUT_OF_TIME = 75
"""The exit code where the time is up: EX_TEMPFAIL of sysexits.h, for what goes on when it is started again."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Notices such a request, as a context.

    In the midst of training the first signal is only noted, so that the step is finished and its checkpoint written; a
    second one, and one at any other time, ends at once with `KeyboardInterrupt`. Only Python's main thread may handle
    signals: in another one they are left as they are.

    Args:
        max_time: after how many seconds the time is up; `None` for never. Of a clock that nobody sets.

    Attributes:
        code: the exit code of what was requested, 128 and the signal's number or `OUT_OF_TIME`; else `None`.
        is_training: whether there are steps to finish.
    """

    def __init__(self, max_time: float | None = None) -> None:
        self.code: int | None = None
        self.is_training = False
        self._end = None if max_time is None else time.monotonic() + max_time
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # What is ignored, as under nohup, or was set by others than Python, stays.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._notice)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before.clear()

    def is_requested(self) -> bool:
        """Whether the run is to end here."""
        if self.code is None and self._end is not None and time.monotonic() >= self._end:
            self.code = OUT_OF_TIME
        return self.code is not None

    def _notice(self, number: int, frame: FrameType | None) -> None:
        is_first = self.code is None
        self.code = 128 + number
        if not (is_first and self.is_training):
            raise KeyboardInterrupt
