"""How often, and how long, as a person writes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Real

from finetuner_core.errors import OptionError
from finetuner_core.values import quote

_UNITS = {"s": 1, "m": 60, "h": 3600}

USUAL = "10m"
"""How often there is a checkpoint where nobody says: what is lost is little, and the share of the time that it takes
is below a hundredth even where writing takes seconds."""


@dataclass(frozen=True)
class Every:
    """How often something happens: every so many steps, or every so many seconds.

    Args:
        steps: where it is counted in steps.
        seconds: where it is counted in seconds.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: int | str | None) -> Every:
        """A number of steps, or a time.

        Raises:
            OptionError: if it is neither.

        >>> Every.of(500), Every.of("500"), Every.of("30s")
        (Every(steps=500, seconds=None), Every(steps=500, seconds=None), Every(steps=None, seconds=30.0))
        """
        value = USUAL if value is None else value
        if isinstance(value, str) and not value.strip().isdecimal():
            return cls(seconds=seconds_of("checkpoint_every", value))
        if isinstance(value, bool) or not isinstance(value, str | int) or int(value) < 1:
            raise OptionError(
                f"checkpoint_every is {quote(value)}; it is a number of steps, at least 1, or a time such as 10m."
            )
        return cls(steps=int(value))


def seconds_of(name: str, value: float | str) -> float:
    """A time in seconds.

    Args:
        name: of the setting, for the message.
        value: a number of seconds, or a number with its unit.

    Raises:
        OptionError: if it is neither, or not above 0.

    >>> seconds_of("max_time", "30m"), seconds_of("max_time", "1.5h"), seconds_of("max_time", 90)
    (1800.0, 5400.0, 90.0)
    """
    number = value
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+\.?\d*)\s*([smh]?)", value.strip())
        number = float(found[1]) * _UNITS[found[2] or "s"] if found else math.nan
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) < math.inf:
        raise OptionError(f"{name} is {quote(value)}; it is a time above 0, such as 30s, 10m or 1.5h.")
    return float(number)
