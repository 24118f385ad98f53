"""InfoNCE against loops, cross-entropy and CLIP's own formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses import LOSSES
from finetuner_core.losses.infonce import MIN_TEMPERATURE, InfoNCELoss

# Right angles and opposite directions: similarities are 1, 0 or -1.
PLACED = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]


def points(count: int, seed: int, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def naive(
    embeddings: Tensor, labels: Sequence[int], ref_emb: Tensor | None, ref_labels: Sequence[int] | None, t: float
) -> float:
    anchors = embeddings.tolist()
    references = anchors if ref_emb is None else ref_emb.tolist()
    other_labels = labels if ref_labels is None else ref_labels
    terms = []
    for i, anchor in enumerate(anchors):
        scores = [math.exp(sum(a * b for a, b in zip(anchor, row, strict=True)) / t) for row in references]
        wrong = sum(score for score, label in zip(scores, other_labels, strict=True) if label != labels[i])
        for j, label in enumerate(other_labels):
            if label == labels[i] and (ref_emb is not None or i != j):
                terms.append(-math.log(scores[j] / (scores[j] + wrong)))
    return sum(terms) / len(terms) if terms else 0.0


CASES = {
    "placed": (torch.tensor(PLACED, dtype=torch.float64), [0, 0, 1, 1], None, None),
    "several positives": (points(9, 1), [0, 0, 0, 1, 1, 2, 2, 2, 2], None, None),
    "a label that stands alone": (points(5, 2), [0, 0, 1, 1, 2], None, None),
    "references": (points(4, 3), [0, 1, 2, 3], points(4, 4), [0, 1, 2, 3]),
    "several positives among references": (points(4, 5), [0, 1, 1, 9], points(6, 6), [1, 1, 0, 2, 1, 0]),
    "no positive": (points(3, 7), [0, 1, 2], None, None),
    "no negative": (points(3, 8), [0, 0, 0], None, None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_it_is_what_a_loop_computes(case: str, temperature: float) -> None:
    embeddings, labels, ref_emb, ref_labels = CASES[case]
    loss = InfoNCELoss(temperature=temperature)
    value = loss(embeddings, torch.tensor(labels), ref_emb, None if ref_labels is None else torch.tensor(ref_labels))
    t = loss.temperature.item()
    assert value.item() == pytest.approx(naive(embeddings, labels, ref_emb, ref_labels, t), abs=1e-9)


def test_with_one_positive_each_it_is_cross_entropy() -> None:
    queries, documents = points(6, 1).float(), points(6, 2).float()
    rows = torch.arange(6)
    value = InfoNCELoss(temperature=0.1)(queries, rows, documents, rows)
    torch.testing.assert_close(value, F.cross_entropy(queries @ documents.T / 0.1, rows))


def test_symmetric_it_is_clips() -> None:
    texts, images = points(6, 1).float(), points(6, 2).float()
    rows = torch.arange(6)
    value = InfoNCELoss(temperature=0.07, symmetric=True)(texts, rows, images, rows)
    logits = texts @ images.T / 0.07
    torch.testing.assert_close(value, (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2)
    assert not torch.allclose(value, InfoNCELoss(temperature=0.07)(texts, rows, images, rows))


def test_symmetric_with_unlike_numbers_of_references_is_the_mean_of_both_directions() -> None:
    embeddings, labels, ref_emb, ref_labels = CASES["several positives among references"]
    assert ref_emb is not None
    assert ref_labels is not None
    loss = InfoNCELoss(temperature=0.2, symmetric=True)
    value = loss(embeddings, torch.tensor(labels), ref_emb, torch.tensor(ref_labels))
    t = loss.temperature.item()
    there, back = naive(embeddings, labels, ref_emb, ref_labels, t), naive(ref_emb, ref_labels, embeddings, labels, t)
    assert value.item() == pytest.approx((there + back) / 2)


def test_among_themselves_both_directions_are_one() -> None:
    embeddings, labels = points(6, 1), torch.tensor([0, 0, 1, 1, 1, 2])
    assert torch.equal(InfoNCELoss(symmetric=True)(embeddings, labels), InfoNCELoss()(embeddings, labels))


@pytest.mark.parametrize("with_references", [False, True])
def test_gradients(with_references: bool) -> None:
    loss = InfoNCELoss(temperature=0.5, symmetric=True)
    labels, ref_labels = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 0])
    embeddings, ref_emb = points(4, 1).requires_grad_(), points(3, 2).requires_grad_()
    if with_references:
        assert torch.autograd.gradcheck(lambda a, b: loss(a, labels, b, ref_labels), (embeddings, ref_emb))
    else:
        assert torch.autograd.gradcheck(lambda a: loss(a, labels), (embeddings,))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], []])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_where_nothing_is_to_be_told_apart_it_is_a_zero_that_can_be_differentiated(
    labels: list[int], temperature: float
) -> None:
    embeddings = points(3, 1)[: len(labels)].float().requires_grad_()
    value = InfoNCELoss(temperature=temperature)(embeddings, torch.tensor(labels, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_equal_points_and_the_least_temperature_give_finite_gradients() -> None:
    embeddings = torch.ones(4, 1).requires_grad_()
    InfoNCELoss(temperature=0.001)(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_the_order_of_a_batch_does_not_matter() -> None:
    embeddings, labels, ref_emb, ref_labels = points(6, 1), torch.arange(6) % 3, points(5, 2), torch.arange(5) % 3
    rows, columns = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4, 2, 0, 1, 3])
    loss = InfoNCELoss(symmetric=True)
    shuffled = loss(embeddings[rows], labels[rows], ref_emb[columns], ref_labels[columns])
    torch.testing.assert_close(shuffled, loss(embeddings, labels, ref_emb, ref_labels))


def test_a_temperature_is_only_trained_if_asked_to() -> None:
    assert not list(InfoNCELoss().parameters())
    loss = InfoNCELoss(temperature=0.1, learnable=True)
    (parameter,) = loss.parameters()
    embeddings, labels = points(6, 1), torch.arange(6) % 2
    loss(embeddings, labels).backward()
    step = 1e-3
    up, down = (naive(embeddings, labels.tolist(), None, None, math.exp(math.log(0.1) + way)) for way in (step, -step))
    assert parameter.grad is not None
    assert parameter.grad.item() == pytest.approx((up - down) / (2 * step), rel=1e-3)


def test_a_learnable_temperature_stays_above_its_bound_and_can_leave_it_again() -> None:
    loss = InfoNCELoss(temperature=0.05, learnable=True)
    (parameter,) = loss.parameters()
    with torch.no_grad():
        # As an optimiser's step that went too far.
        parameter.fill_(math.log(0.0001))
    # The positives are farther than the negatives: only a higher temperature helps.
    embeddings, labels = points(4, 1), torch.arange(4)
    value = loss(embeddings, labels, embeddings.flip(0), labels)
    assert loss.temperature.item() == pytest.approx(MIN_TEMPERATURE)
    assert value.item() == pytest.approx(naive(embeddings, [0, 1, 2, 3], embeddings.flip(0), [0, 1, 2, 3], 0.01), 1e-4)
    value.backward()
    torch.optim.SGD([parameter], lr=0.01).step()
    loss(embeddings, labels, embeddings.flip(0), labels)
    assert loss.temperature.item() > 1.1 * MIN_TEMPERATURE


def test_it_is_built_by_its_name() -> None:
    assert LOSSES["infonce"] is InfoNCELoss
