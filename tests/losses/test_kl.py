"""The Kullback-Leibler divergence against a loop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional as F

from finetuner_core.losses.kl import KLLoss


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(0.05, 1.0), (0.3, 4.0)])
def test_it_is_what_a_loop_computes(candidates: int, temperature: float, teacher_temperature: float) -> None:
    generator = torch.Generator().manual_seed(candidates)
    anchors = F.normalize(torch.randn(5, 3, generator=generator, dtype=torch.float64), dim=-1)
    others = F.normalize(torch.randn(5, candidates, 3, generator=generator, dtype=torch.float64), dim=-1)
    scores = torch.randn(5, candidates, generator=generator, dtype=torch.float64) * 5
    total = 0.0
    for i in range(5):
        near = [sum(a * b for a, b in zip(anchors[i].tolist(), row, strict=True)) for row in others[i].tolist()]
        own = softmax([value / temperature for value in near])
        teacher = softmax([value / teacher_temperature for value in scores[i].tolist()])
        total += sum(p * math.log(p / q) for p, q in zip(teacher, own, strict=True))
    value = KLLoss(temperature=temperature, teacher_temperature=teacher_temperature)(anchors, scores, others)
    assert value.item() == pytest.approx(temperature**2 * total / 5, rel=1e-9)


def test_it_is_zero_where_both_distributions_are_equal() -> None:
    candidates = torch.eye(2).repeat(2, 1, 1)
    value = KLLoss(temperature=0.1)(torch.eye(2), torch.tensor([[10.0, 0.0], [-3.0, 7.0]]), candidates)
    assert value.item() == pytest.approx(0, abs=1e-9)
