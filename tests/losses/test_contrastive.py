"""The contrastive loss against loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses.contrastive import ContrastiveLoss


def points(count: int, seed: int, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def naive(
    margin: float, embeddings: Tensor, labels: Sequence[int], ref_emb: Tensor | None, ref_labels: Sequence[int] | None
) -> float:
    references = (embeddings if ref_emb is None else ref_emb).tolist()
    other_labels = labels if ref_labels is None else ref_labels
    drawn, pushed = [], []
    for i, anchor in enumerate(embeddings.tolist()):
        for j, row in enumerate(references):
            apart = math.dist(anchor, row)
            if labels[i] != other_labels[j]:
                if apart < margin:
                    pushed.append((margin - apart) ** 2)
            elif ref_emb is not None or i != j:
                drawn.append(apart**2)
    return sum(sum(terms) / len(terms) for terms in (drawn, pushed) if terms)


CASES = {
    "placed": (torch.tensor([[0.0], [0.3], [1.0], [1.2]], dtype=torch.float64), [0, 0, 1, 0], None, None),
    "several positives": (points(9, 1), [0, 0, 0, 1, 1, 2, 2, 2, 2], None, None),
    "a label that stands alone": (points(5, 2), [0, 0, 1, 1, 2], None, None),
    "references": (points(4, 3), [0, 1, 2, 3], points(4, 4), [0, 1, 2, 3]),
    "several positives among references": (points(4, 5), [0, 1, 1, 9], points(6, 6), [1, 1, 0, 2, 1, 0]),
    "no positive": (points(3, 7), [0, 1, 2], None, None),
    "no negative": (points(3, 8), [0, 0, 0], None, None),
    "empty": (points(3, 9)[:0], [], None, None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("margin", [0.0, 0.5, 2.5])
def test_it_is_what_a_loop_computes(case: str, margin: float) -> None:
    embeddings, labels, ref_emb, ref_labels = CASES[case]
    rows = embeddings.clone().requires_grad_()
    others = None if ref_labels is None else torch.tensor(ref_labels)
    value = ContrastiveLoss(margin=margin)(rows, torch.tensor(labels, dtype=torch.long), ref_emb, others)
    assert value.item() == pytest.approx(naive(margin, embeddings, labels, ref_emb, ref_labels), abs=1e-12)
    value.backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_by_hand() -> None:
    # Labels 0 at 0 and 0.3, 1 at 0.4: one positive pair at 0.3; negatives at 0.4 and 0.1, each seen from both sides.
    line = torch.tensor([[0.0], [0.3], [0.4]], dtype=torch.float64)
    value = ContrastiveLoss(margin=0.5)(line, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx(0.3**2 + (0.1**2 + 0.4**2) / 2)


def test_gradients() -> None:
    loss = ContrastiveLoss(margin=1.2)
    embeddings, labels = points(6, 1).requires_grad_(), torch.arange(6) % 3
    ref_emb, ref_labels = points(5, 2).requires_grad_(), torch.arange(5) % 3
    assert torch.autograd.gradcheck(lambda a: loss(a, labels), (embeddings,))
    assert torch.autograd.gradcheck(lambda a, b: loss(a, labels, b, ref_labels), (embeddings, ref_emb))


def test_equal_points_give_finite_gradients() -> None:
    embeddings = torch.ones(4, 2).requires_grad_()
    ContrastiveLoss()(embeddings, torch.arange(4) % 2).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_the_order_of_a_batch_does_not_matter() -> None:
    embeddings, labels, rows = points(8, 1), torch.arange(8) % 3, torch.tensor([3, 0, 7, 5, 1, 4, 6, 2])
    loss = ContrastiveLoss(margin=1.0)
    torch.testing.assert_close(loss(embeddings[rows], labels[rows]), loss(embeddings, labels))
