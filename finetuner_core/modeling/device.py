"""Where a model computes."""

from __future__ import annotations

import torch

from finetuner_core.errors import OptionError
from finetuner_core.values import quote


def choose_device(name: str) -> torch.device:
    """The device of that name; for `auto` a GPU where there is one.

    Raises:
        OptionError: if there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        # There and back: "meta" is a device as well, and computes nothing.
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise OptionError(f"device {quote(name)} cannot be used: {reason}.\nUse cpu, or auto.") from None
    return device
