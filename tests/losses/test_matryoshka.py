"""The loss over widths against a loop, with data of each form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.cosent import CoSENTLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.kl import KLLoss
from finetuner_core.losses.matryoshka import MatryoshkaLoss, matryoshka
from finetuner_core.losses.siglip import SigLIPLoss

WIDTHS = (8, 4, 2)


def points(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, 8, generator=generator, dtype=torch.float64), dim=-1)


def cut(embeddings: Tensor, width: int) -> Tensor:
    """The first features of each row, brought to length 1, number by number."""
    rows = [row[:width] for row in embeddings.reshape(-1, embeddings.shape[-1]).tolist()]
    made = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in rows]
    return torch.tensor(made, dtype=torch.float64).reshape(*embeddings.shape[:-1], width)


LABELS, REF_LABELS = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 3, 2, 1])


@pytest.mark.parametrize("loss", [InfoNCELoss(), ContrastiveLoss(margin=1.0)])
@pytest.mark.parametrize("weights", [None, {8: 1.0, 4: 0.5, 2: 0.0}, {4: 3.0}])
def test_it_is_the_sum_over_widths(loss: nn.Module, weights: dict[int, float] | None) -> None:
    embeddings, references = points(5, seed=1), points(6, seed=2)
    wrapped = MatryoshkaLoss(dict.fromkeys(WIDTHS, loss), weights)
    alone, paired = 0.0, 0.0
    for width in WIDTHS:
        weight = (weights or {}).get(width, 1.0)
        rows, others = cut(embeddings, width), cut(references, width)
        alone += weight * loss(rows, LABELS).item()
        paired += weight * loss(rows, LABELS, others, REF_LABELS).item()
    assert wrapped(embeddings, LABELS).item() == pytest.approx(alone)
    assert wrapped(embeddings, LABELS, references, REF_LABELS).item() == pytest.approx(paired)


@pytest.mark.parametrize("loss", [CoSENTLoss(), KLLoss()])
def test_scores_are_taken_too(loss: nn.Module) -> None:
    anchors, candidates, scores = points(5, seed=1), points(5, 3, seed=2), torch.arange(15).reshape(5, 3) % 4
    expected = sum(loss(cut(anchors, width), scores, cut(candidates, width)).item() for width in WIDTHS)
    wrapped = MatryoshkaLoss(dict.fromkeys(WIDTHS, loss))
    assert wrapped(anchors, scores, ref_emb=candidates).item() == pytest.approx(expected)


def test_what_is_excluded_is_so_at_each_width() -> None:
    embeddings, loss = points(5, seed=1), InfoNCELoss()
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[0, 3] = excluded[3, 0] = True
    expected = sum(loss(cut(embeddings, width), LABELS, excluded=excluded).item() for width in WIDTHS)
    wrapped = MatryoshkaLoss(dict.fromkeys(WIDTHS, loss))
    assert wrapped(embeddings, LABELS, excluded=excluded).item() == pytest.approx(expected)
    assert wrapped(embeddings, LABELS).item() != pytest.approx(expected)


def test_each_width_has_parameters_of_its_own() -> None:
    loss = matryoshka(lambda _: SigLIPLoss(), WIDTHS)
    assert len(list(loss.parameters())) == 2 * len(WIDTHS)
    loss(points(5, seed=1).float(), LABELS).backward()
    assert len({parameter.grad.item() for parameter in loss.parameters() if parameter.grad is not None}) == 6


def test_the_builder_is_told_the_width() -> None:
    built: list[int] = []

    def build(width: int) -> nn.Module:
        built.append(width)
        return InfoNCELoss()

    matryoshka(build, WIDTHS)
    assert built == list(WIDTHS)


def test_gradients() -> None:
    loss = matryoshka(lambda _: InfoNCELoss(temperature=0.5), WIDTHS)
    embeddings, references = points(4, seed=1).requires_grad_(), points(3, seed=2).requires_grad_()
    labels, ref_labels = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 0])
    assert torch.autograd.gradcheck(lambda a, b: loss(a, labels, b, ref_labels), (embeddings, references))
    assert torch.autograd.gradcheck(lambda a: loss(a, labels), (embeddings,))


def test_where_no_pair_can_be_formed_it_is_a_zero_that_can_be_differentiated() -> None:
    embeddings = points(1, seed=1).requires_grad_()
    value = matryoshka(lambda _: InfoNCELoss(), WIDTHS)(embeddings, torch.tensor([0]))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()
