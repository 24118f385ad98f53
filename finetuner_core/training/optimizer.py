"""AdamW, and how its learning rate rises and falls."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from finetuner_core.training.settings import Schedule

# What starts from a guess (a projection, the temperature of a loss) would hardly move at the small rates that suit a
# pretrained network.
NEW_LEARNING_RATE = 1e-3


def build_optimizer(
    model: nn.Module,
    loss: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    new: Iterable[nn.Parameter] = (),
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) over all that is to be trained.

    Weights decay; biases, norms and what else has one dimension does not, and neither do the loss's parameters. What is
    new learns at 1e-3 at least.

    Args:
        model: its parameters are trained, unless they are frozen.
        loss: its own parameters are new.
        learning_rate: of all that is not new.
        weight_decay: of weights.
        new: parameters of the model that start from a guess beside others that are pretrained.
    """
    guessed = {id(parameter) for parameter in new}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fast = max(learning_rate, NEW_LEARNING_RATE)
    groups = [
        {
            "params": [p for p in trained if (p.ndim > 1) is decays and (id(p) in guessed) is is_new],
            "weight_decay": weight_decay if decays else 0.0,
            "lr": fast if is_new else learning_rate,
        }
        for is_new in (False, True)
        for decays in (True, False)
    ]
    groups.append({"params": [p for p in loss.parameters() if p.requires_grad], "weight_decay": 0.0, "lr": fast})
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def learning_rate_factor(step: int, steps: int, warmup: float, schedule: Schedule) -> float:
    """The share of the peak learning rate at a step.

    It rises in a line over the first `warmup` of all steps, and then falls to 0 in half a cosine or in a line.

    Args:
        step: from 0.
        steps: how many there are.
        warmup: share of the steps.
        schedule: how it falls.

    >>> [round(learning_rate_factor(step, 10, 0.2, "linear"), 3) for step in range(10)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    left = 1 - (step - rising) / max(1, steps - rising)
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
