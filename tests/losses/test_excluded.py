"""Pairs that do not count: what a loss gives with them is what a loop gives that never forms them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.cosent import CoSENTLoss
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.matryoshka import MatryoshkaLoss
from finetuner_core.losses.pairs import form_pairs
from finetuner_core.losses.siglip import SigLIPLoss
from finetuner_core.losses.triplet import TripletLoss

T, MARGIN, SCALE, BIAS = 0.2, 0.9, 3.0, -1.0


class Given(NamedTuple):
    """For each anchor the similarity and distance to each positive and each negative that counts."""

    positives: list[list[tuple[float, float]]]
    negatives: list[list[tuple[float, float]]]


def infonce(given: Given) -> float:
    terms = [
        -math.log(math.exp(p / T) / (math.exp(p / T) + sum(math.exp(n / T) for n, _ in negatives)))
        for positives, negatives in zip(*given, strict=True)
        for p, _ in positives
    ]
    return sum(terms) / len(terms)


def contrastive(given: Given) -> float:
    drawn = [d**2 for row in given.positives for _, d in row]
    pushed = [(MARGIN - d) ** 2 for row in given.negatives for _, d in row if d < MARGIN]
    return sum(drawn) / len(drawn) + sum(pushed) / len(pushed)


def hard(given: Given) -> float:
    terms = [
        max(0.0, max(d for _, d in positives) - min(d for _, d in negatives) + MARGIN)
        for positives, negatives in zip(*given, strict=True)
        if positives and negatives
    ]
    return sum(terms) / len(terms)


def semihard(given: Given) -> float:
    terms = [
        p - n + MARGIN
        for positives, negatives in zip(*given, strict=True)
        for _, p in positives
        for _, n in negatives
        if p < n < p + MARGIN
    ]
    return sum(terms) / len(terms)


def siglip(given: Given) -> float:
    def likelihood(logit: float) -> float:
        return math.log(1 / (1 + math.exp(-logit)))

    terms = [likelihood(SCALE * s + BIAS) for row in given.positives for s, _ in row]
    terms += [likelihood(-SCALE * s - BIAS) for row in given.negatives for s, _ in row]
    return -sum(terms) / len(given.positives)


LOSSES: dict[str, tuple[nn.Module, Callable[[Given], float]]] = {
    "infonce": (InfoNCELoss(temperature=T), infonce),
    "contrastive": (ContrastiveLoss(margin=MARGIN), contrastive),
    "hard triplets": (TripletLoss(margin=MARGIN), hard),
    "semihard triplets": (TripletLoss(margin=MARGIN, mining="semihard"), semihard),
    "siglip": (SigLIPLoss(scale=SCALE, bias=BIAS), siglip),
}


def points(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_loop_without_these_pairs_computes(name: str, with_references: bool, seed: int) -> None:
    loss, naive = LOSSES[name]
    generator = torch.Generator().manual_seed(seed)
    embeddings, labels = points(8, seed).requires_grad_(), torch.arange(8) % 3
    references, ref_labels = points(7, seed + 10).requires_grad_(), torch.arange(7) % 4
    others, other_labels = (references, ref_labels) if with_references else (embeddings, labels)
    excluded = torch.rand(8, len(others), generator=generator) < 0.3
    given = Given([], [])
    for i, anchor in enumerate(embeddings.tolist()):
        kinds: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        for j, other in enumerate(others.tolist()):
            if not excluded[i, j] and (with_references or i != j):
                found = sum(a * b for a, b in zip(anchor, other, strict=True)), math.dist(anchor, other)
                kinds[0 if labels[i] == other_labels[j] else 1].append(found)
        given.positives.append(kinds[0])
        given.negatives.append(kinds[1])
    more = {"ref_emb": references, "ref_labels": ref_labels} if with_references else {}

    value = loss(embeddings, labels, **more, excluded=excluded)

    assert value.item() == pytest.approx(naive(given), abs=1e-6)
    assert value.item() != pytest.approx(loss(embeddings, labels, **more).item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_where_all_is_excluded_it_is_a_zero_that_can_be_differentiated(name: str) -> None:
    embeddings = points(6, 1).requires_grad_()
    value = LOSSES[name][0](embeddings, torch.arange(6) % 2, excluded=torch.ones(6, 6, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_symmetric_infonce_leaves_them_out_in_both_directions() -> None:
    anchors, references, rows = points(5, 1), points(5, 2), torch.arange(5)
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[0, 3] = excluded[4, 1] = True
    loss = InfoNCELoss(temperature=T, symmetric=True)
    logits = (anchors @ references.T / loss.temperature).masked_fill(excluded, float("-inf"))
    expected = (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2
    torch.testing.assert_close(loss(anchors, rows, references, rows, excluded), expected)


def test_excluded_has_a_place_for_each_pair() -> None:
    with pytest.raises(ValueError, match=r"excluded is \(6, 5\), and the pairs are \(6, 6\)"):
        form_pairs(points(6, 1), torch.arange(6), None, None, torch.zeros(6, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("loss", "takes"),
    [
        (InfoNCELoss(), True),
        (CoSENTLoss(), False),
        (MatryoshkaLoss({2: InfoNCELoss(), 4: SigLIPLoss()}), True),
        (MatryoshkaLoss({2: InfoNCELoss(), 4: CoSENTLoss()}), False),
    ],
)
def test_a_loss_takes_them_if_all_that_it_wraps_do(loss: nn.Module, takes: bool) -> None:
    assert takes_excluded(loss) is takes
