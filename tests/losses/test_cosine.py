"""The cosine loss against a loop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finetuner_core.losses.cosine import CosineLoss


@pytest.mark.parametrize("candidates", [1, 3])
def test_it_is_what_a_loop_computes(candidates: int) -> None:
    generator = torch.Generator().manual_seed(candidates)
    anchors = F.normalize(torch.randn(4, 3, generator=generator), dim=-1)
    others = F.normalize(torch.randn(4, candidates, 3, generator=generator), dim=-1)
    scores = torch.rand(4, candidates, generator=generator)
    terms = [
        (sum(a * b for a, b in zip(anchors[i].tolist(), others[i, k].tolist(), strict=True)) - scores[i, k].item()) ** 2
        for i in range(4)
        for k in range(candidates)
    ]
    assert CosineLoss()(anchors, scores, others).item() == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_it_is_zero_where_cosines_are_the_scores() -> None:
    anchors, candidates = torch.eye(3), torch.stack([torch.eye(3)[0], torch.eye(3)[0], -torch.eye(3)[2]])[:, None]
    assert CosineLoss()(anchors, torch.tensor([[1.0], [0.0], [-1.0]]), candidates).item() == 0
