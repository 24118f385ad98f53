"""The learning rate's way, and which parameters go which way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.training.optimizer import NEW_LEARNING_RATE, build_optimizer, learning_rate_factor
from finetuner_core.training.settings import Schedule


def naive(steps: int, warmup: float, schedule: Schedule) -> list[float]:
    rising = math.ceil(steps * warmup)
    factors = [(number + 1) / rising for number in range(rising)]
    falling = steps - rising
    for number in range(falling):
        done = number / falling
        factors.append(1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
    return factors


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 0.99])
def test_the_schedule_is_what_its_formula_says(steps: int, warmup: float, schedule: Schedule) -> None:
    factors = [learning_rate_factor(step, steps, warmup, schedule) for step in range(steps)]
    assert factors == pytest.approx(naive(steps, warmup, schedule))
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
    if factors[-1] < 1:
        # After the last step a scheduler asks for one more.
        assert learning_rate_factor(steps, steps, warmup, schedule) == pytest.approx(0, abs=1e-12)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)


def test_matrices_decay_and_nothing_else() -> None:
    network, loss = Network(), InfoNCELoss(learnable=True)
    optimizer = build_optimizer(network, loss, 1e-4, 0.3)
    setting = {
        id(parameter): (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    names = {name: setting.get(id(parameter)) for name, parameter in network.named_parameters()}
    assert names == {
        "kernel.weight": (0.3, 1e-4),
        "kernel.bias": (0, 1e-4),
        "norm.weight": (0, 1e-4),
        "norm.bias": (0, 1e-4),
        "layer.weight": (0.3, 1e-4),
        "layer.bias": (0, 1e-4),
        "frozen.weight": None,
        "frozen.bias": None,
    }
    (temperature,) = loss.parameters()
    assert setting[id(temperature)] == (0, NEW_LEARNING_RATE)
    assert len(setting) == 7


@pytest.mark.parametrize(("rate", "expected"), [(1e-5, NEW_LEARNING_RATE), (0.1, 0.1)])
def test_a_loss_learns_at_its_own_rate_or_faster(rate: float, expected: float) -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), InfoNCELoss(learnable=True), rate, 0)
    assert [group["lr"] for group in optimizer.param_groups] == [rate, rate, expected]


def test_groups_of_nothing_are_left_out() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2, bias=False), InfoNCELoss(), 0.1, 0)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_one_step_is_adamws() -> None:
    layer = nn.Linear(2, 1)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = build_optimizer(layer, nn.Identity(), 0.1, 0.5)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    # The first step of Adam is the sign of the gradient; AdamW shrinks the weight beside it, and not the bias.
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.1 * 0.5) - 0.1)
    torch.testing.assert_close(layer.bias.detach(), bias - 0.1)
