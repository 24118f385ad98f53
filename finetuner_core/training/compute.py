"""Where training computes, and in which precision."""

from __future__ import annotations

import torch

from finetuner_core.errors import OptionError
from finetuner_core.training.settings import Precision
from finetuner_core.values import Modality, quote


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


def choose_precision(precision: Precision, device: torch.device, modalities: tuple[Modality, ...]) -> torch.dtype:
    """What the forward pass computes in; weights and their optimiser stay in float32 in any case.

    `auto` takes bfloat16 where the hardware multiplies matrices in it faster. For an MLP over vectors it never does:
    the casts cost more than its small products gain.
    """
    if precision != "auto":
        return getattr(torch, precision)  # type: ignore[no-any-return]
    if modalities == ("vector",):
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
