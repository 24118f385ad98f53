"""AdamW, and how its learning rate rises and falls."""

from __future__ import annotations

import math

import torch
from torch import nn

from finetuner_core.training.settings import Schedule

# A loss has few parameters (a temperature), which start from a guess: at the small rates that suit a pretrained network
# they would hardly move.
LOSS_LEARNING_RATE = 1e-3


def build_optimizer(model: nn.Module, loss: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) over all that is to be trained.

    Weights decay; biases, norms and what else has one dimension does not, and neither do the loss's parameters.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        {
            "params": [p for p in loss.parameters() if p.requires_grad],
            "weight_decay": 0.0,
            "lr": max(learning_rate, LOSS_LEARNING_RATE),
        },
    ]
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
