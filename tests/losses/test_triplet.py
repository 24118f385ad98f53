"""The triplet loss against loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses.triplet import TripletLoss


def points(count: int, seed: int, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def naive(
    mining: str,
    margin: float,
    embeddings: Tensor,
    labels: Sequence[int],
    ref_emb: Tensor | None,
    ref_labels: Sequence[int] | None,
) -> float:
    references = (embeddings if ref_emb is None else ref_emb).tolist()
    other_labels = labels if ref_labels is None else ref_labels
    terms: list[float] = []
    for i, anchor in enumerate(embeddings.tolist()):
        apart = [math.dist(anchor, row) for row in references]
        of_label = [j for j, label in enumerate(other_labels) if label == labels[i]]
        positives = [apart[j] for j in of_label if ref_emb is not None or j != i]
        negatives = [apart[j] for j in range(len(apart)) if j not in of_label]
        if mining == "hard" and positives and negatives:
            terms.append(max(0.0, max(positives) - min(negatives) + margin))
        if mining == "semihard":
            terms += [p - n + margin for p in positives for n in negatives if p < n < p + margin]
    return sum(terms) / len(terms) if terms else 0.0


ON_A_LINE = torch.tensor([[0.0], [0.3], [1.0], [1.2], [5.0]], dtype=torch.float64)

CASES = {
    "placed": (ON_A_LINE, [0, 0, 1, 0, 1], None, None),
    "several positives": (points(9, 1), [0, 0, 0, 1, 1, 2, 2, 2, 2], None, None),
    "a label that stands alone": (points(7, 2), [0, 0, 1, 1, 2, 1, 0], None, None),
    "references": (points(4, 3), [0, 1, 2, 3], points(4, 4), [0, 1, 2, 3]),
    "several positives among references": (points(5, 5), [0, 1, 1, 9, 2], points(6, 6), [1, 1, 0, 2, 1, 0]),
    "no positive": (points(3, 7), [0, 1, 2], None, None),
    "no negative": (points(3, 8), [0, 0, 0], None, None),
    "empty": (points(3, 9)[:0], [], None, None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mining", ["hard", "semihard"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
def test_it_is_what_a_loop_computes(case: str, mining: str, margin: float) -> None:
    embeddings, labels, ref_emb, ref_labels = CASES[case]
    rows = embeddings.clone().requires_grad_()
    others = None if ref_labels is None else torch.tensor(ref_labels)
    value = TripletLoss(margin=margin, mining=mining)(rows, torch.tensor(labels, dtype=torch.long), ref_emb, others)
    assert value.item() == pytest.approx(naive(mining, margin, embeddings, labels, ref_emb, ref_labels), abs=1e-12)
    # Also where no triplet can be formed.
    value.backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_hard_takes_the_farthest_positive_and_the_nearest_negative() -> None:
    # The anchor at 0 has positives at 0.3 and 1.2 and a negative at 1.0.
    anchor, labels = ON_A_LINE[:1], torch.tensor([0, 1, 0])
    value = TripletLoss(margin=0.2)(anchor, torch.tensor([0]), ON_A_LINE[1:4], labels)
    assert value.item() == pytest.approx(1.2 - 1.0 + 0.2)


def test_semihard_takes_negatives_beyond_the_positive_but_within_the_margin() -> None:
    # One positive at 0.3; of the negatives 0.2 is too near, 0.4 counts, and 0.6 is far enough.
    references = torch.tensor([[0.3], [0.2], [0.4], [0.6]], dtype=torch.float64)
    value = TripletLoss(margin=0.2, mining="semihard")(
        ON_A_LINE[:1], torch.tensor([0]), references, torch.tensor([0, 1, 1, 1])
    )
    assert value.item() == pytest.approx(0.3 - 0.4 + 0.2)


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_gradients(mining: str) -> None:
    loss = TripletLoss(margin=1.0, mining=mining)
    embeddings, labels = points(6, 1).requires_grad_(), torch.arange(6) % 3
    ref_emb, ref_labels = points(5, 2).requires_grad_(), torch.arange(5) % 3
    assert torch.autograd.gradcheck(lambda a: loss(a, labels), (embeddings,))
    assert torch.autograd.gradcheck(lambda a, b: loss(a, labels, b, ref_labels), (embeddings, ref_emb))


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_equal_points_give_finite_gradients(mining: str) -> None:
    embeddings = torch.ones(6, 2).requires_grad_()
    TripletLoss(mining=mining)(embeddings, torch.arange(6) % 2).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_the_order_of_a_batch_does_not_matter(mining: str) -> None:
    embeddings, labels, rows = points(8, 1), torch.arange(8) % 3, torch.tensor([3, 0, 7, 5, 1, 4, 6, 2])
    loss = TripletLoss(margin=0.5, mining=mining)
    torch.testing.assert_close(loss(embeddings[rows], labels[rows]), loss(embeddings, labels))
