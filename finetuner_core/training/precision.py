"""In which precision training computes."""

from __future__ import annotations

import torch

from finetuner_core.training.settings import Precision
from finetuner_core.values import Modality


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
