"""CoSENT against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses.cosent import CoSENTLoss


def points(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, 4, generator=generator, dtype=torch.float64), dim=-1)


def naive(anchors: Tensor, scores: Tensor, candidates: Tensor, t: float) -> float:
    pairs = []
    for anchor, own_scores, own in zip(anchors.tolist(), scores.tolist(), candidates.tolist(), strict=True):
        for score, candidate in zip(own_scores, own, strict=True):
            pairs.append((score, sum(a * b for a, b in zip(anchor, candidate, strict=True))))
    total = 1.0
    for high, near in pairs:
        for low, far in pairs:
            if high > low:
                total += math.exp((far - near) / t)
    return math.log(total)


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_what_a_loop_computes(candidates: int, temperature: float, ties: bool) -> None:
    anchors, others = points(6, seed=1), points(6, candidates, seed=2)
    scores = torch.randn(6, candidates, generator=torch.Generator().manual_seed(3))
    scores = scores.round() if ties else scores
    value = CoSENTLoss(temperature=temperature)(anchors, scores, others)
    assert value.item() == pytest.approx(naive(anchors, scores, others, temperature), abs=1e-9)


def test_by_hand() -> None:
    # Cosines 1 and 0. With the higher score at the lower cosine: log(1 + e^((1 - 0) / 0.5)).
    anchors, candidates = torch.eye(2), torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    value = CoSENTLoss(temperature=0.5)(anchors, torch.tensor([[1.0], [2.0]]), candidates)
    assert value.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_only_the_order_of_scores_counts() -> None:
    anchors, candidates = points(5, seed=1), points(5, 1, seed=2)
    scores = torch.tensor([[0.0], [1.0], [2.0], [3.0], [2.0]])
    value = CoSENTLoss()(anchors, scores, candidates)
    assert torch.equal(CoSENTLoss()(anchors, scores**3 - 50, candidates), value)


@pytest.mark.parametrize("scores", [[[1.0]], [[2.0], [2.0], [2.0]]])
def test_where_nothing_has_an_order_it_is_a_zero_that_can_be_differentiated(scores: list[list[float]]) -> None:
    anchors, candidates = points(len(scores), seed=1).requires_grad_(), points(len(scores), 1, seed=2).requires_grad_()
    value = CoSENTLoss()(anchors, torch.tensor(scores), candidates)
    value.backward()
    assert value.item() == 0
    assert anchors.grad is not None
    assert candidates.grad is not None
    assert not anchors.grad.any()
    assert not candidates.grad.any()
