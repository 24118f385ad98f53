"""SigLIP against loops and the paper's own formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses.siglip import SigLIPLoss


def points(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, generator=generator, dtype=torch.float64), dim=1)


def naive(embeddings: Tensor, labels: Sequence[int], ref_emb: Tensor | None, ref_labels: Sequence[int] | None) -> float:
    others, other_labels = (embeddings, labels) if ref_emb is None or ref_labels is None else (ref_emb, ref_labels)
    total = 0.0
    for i, anchor in enumerate(embeddings.tolist()):
        for j, row in enumerate(others.tolist()):
            if ref_emb is not None or i != j:
                logit = 4.0 * sum(a * b for a, b in zip(anchor, row, strict=True)) - 2.0
                total += math.log(1 + math.exp(-logit if labels[i] == other_labels[j] else logit))
    return total / len(labels)


CASES = {
    "several positives": (points(7, 1), [0, 0, 0, 1, 1, 2, 3], None, None),
    "references": (points(4, 3), [0, 1, 2, 3], points(4, 4), [0, 1, 2, 3]),
    "hard negatives": (points(3, 5), [0, 1, 2], points(6, 6), [0, 1, 2, 3, 4, 5]),
    "no positive": (points(3, 7), [0, 1, 2], None, None),
    "no negative": (points(3, 8), [0, 0, 0], None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_a_loop_computes(case: str) -> None:
    embeddings, labels, ref_emb, ref_labels = CASES[case]
    others = None if ref_labels is None else torch.tensor(ref_labels)
    value = SigLIPLoss(scale=4.0, bias=-2.0)(embeddings, torch.tensor(labels), ref_emb, others)
    assert value.item() == pytest.approx(naive(embeddings, labels, ref_emb, ref_labels), abs=1e-6)


def test_of_pairs_it_is_the_papers() -> None:
    # Algorithm 1 of the paper.
    images, texts, rows = points(6, 1).float(), points(6, 2).float(), torch.arange(6)
    logits = images @ texts.T * 10 - 10
    expected = -F.logsigmoid((2 * torch.eye(6) - 1) * logits).sum() / 6
    torch.testing.assert_close(SigLIPLoss()(images, rows, texts, rows), expected)


@pytest.mark.parametrize("count", [0, 1])
def test_where_no_pair_can_be_formed_it_is_a_zero_that_can_be_differentiated(count: int) -> None:
    embeddings = points(1, 1)[:count].requires_grad_()
    value = SigLIPLoss()(embeddings, torch.arange(count))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_scale_and_bias_are_trained() -> None:
    loss = SigLIPLoss(scale=4.0, bias=-2.0).double()
    embeddings, labels = points(6, 1), torch.arange(6) % 2
    loss(embeddings, labels).backward()
    similar = embeddings @ embeddings.T
    same = torch.where(labels[:, None] == labels, 1.0, -1.0)
    # The derivative of -log sigmoid(z x) by x is -z sigmoid(-z x); with a = e^a', that of a s by a' is a s.
    slope = (-same * torch.sigmoid(-same * (4 * similar - 2))).fill_diagonal_(0) / 6
    assert loss.bias.grad is not None
    assert loss.log_scale.grad is not None
    assert loss.bias.grad.item() == pytest.approx(slope.sum().item(), rel=1e-5)
    assert loss.log_scale.grad.item() == pytest.approx((slope * 4 * similar).sum().item(), rel=1e-5)


@pytest.mark.parametrize("with_references", [False, True])
def test_gradients(with_references: bool) -> None:
    loss = SigLIPLoss(scale=2.0, bias=-1.0).double()
    embeddings, references = points(4, 1).requires_grad_(), points(3, 2).requires_grad_()
    labels, ref_labels = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 0])
    if with_references:
        assert torch.autograd.gradcheck(lambda a, b: loss(a, labels, b, ref_labels), (embeddings, references))
    else:
        assert torch.autograd.gradcheck(lambda a: loss(a, labels), (embeddings,))
