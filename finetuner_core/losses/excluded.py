"""Which losses can be told that some pairs do not count."""

from __future__ import annotations

import inspect

from torch import nn

from finetuner_core.losses.matryoshka import MatryoshkaLoss


def takes_excluded(loss: nn.Module) -> bool:
    """Whether a loss may be given `excluded`: its `forward` has a parameter of that name, and so have those it wraps.

    Args:
        loss: any loss.
    """
    if isinstance(loss, MatryoshkaLoss):
        return all(takes_excluded(inner) for inner in loss.losses.values())
    return "excluded" in inspect.signature(loss.forward).parameters
