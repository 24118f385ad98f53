"""MarginMSE against a loop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finetuner_core.losses.margin_mse import MarginMSELoss


@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize("scale", [1.0, 12.5])
def test_it_is_what_a_loop_computes(candidates: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(candidates)
    anchors = F.normalize(torch.randn(5, 3, generator=generator, dtype=torch.float64), dim=-1)
    others = F.normalize(torch.randn(5, candidates, 3, generator=generator, dtype=torch.float64), dim=-1)
    scores = torch.randn(5, candidates, generator=generator, dtype=torch.float64) * 10
    terms = []
    for i in range(5):
        near = [sum(a * b for a, b in zip(anchors[i].tolist(), row, strict=True)) for row in others[i].tolist()]
        teacher = scores[i].tolist()
        terms += [(scale * (near[0] - near[k]) - (teacher[0] - teacher[k])) ** 2 for k in range(1, candidates)]
    value = MarginMSELoss(scale=scale)(anchors, scores, others)
    assert value.item() == pytest.approx(sum(terms) / len(terms), abs=1e-9)


def test_what_is_added_to_all_scores_of_an_anchor_does_not_matter() -> None:
    anchors, candidates, scores = torch.eye(2), torch.eye(2).repeat(2, 1, 1), torch.tensor([[3.0, 1.0], [0.0, 5.0]])
    value = MarginMSELoss()(anchors, scores, candidates)
    torch.testing.assert_close(MarginMSELoss()(anchors, scores + torch.tensor([[4.0], [-8.0]]), candidates), value)
