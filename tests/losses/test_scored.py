"""What all losses over scores share, against loops; and batches of which nothing can be learnt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.errors import DataError
from finetuner_core.losses.cosent import CoSENTLoss
from finetuner_core.losses.cosine import CosineLoss
from finetuner_core.losses.kl import KLLoss
from finetuner_core.losses.margin_mse import MarginMSELoss
from finetuner_core.losses.scored import similarities

ANY_NUMBER = [CoSENTLoss(), CosineLoss()]
SEVERAL = [KLLoss(), MarginMSELoss()]


def batch(anchors: int, candidates: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(anchors, candidates + 1, 5, generator=generator, dtype=torch.float64)
    rows = F.normalize(rows, dim=2)
    scores = torch.randn(anchors, candidates, generator=generator)
    return rows[:, 0].clone().requires_grad_(), scores, rows[:, 1:].clone().requires_grad_()


def test_similarities_are_those_of_an_anchor_and_its_own_candidates() -> None:
    anchors, scores, candidates = batch(3, 2)
    found = similarities(anchors, scores, candidates)
    for i in range(3):
        for k in range(2):
            expected = sum(a * b for a, b in zip(anchors[i].tolist(), candidates[i, k].tolist(), strict=True))
            assert found[i, k].item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (3,)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    anchors, _, candidates = batch(3, 2)
    with pytest.raises(ValueError, match="a score for each candidate"):
        CosineLoss()(anchors, torch.zeros(shape), candidates)
    with pytest.raises(ValueError, match="a score for each candidate"):
        CosineLoss()(anchors, torch.zeros(3, 2), candidates[:, 0])


@pytest.mark.parametrize(("loss", "name"), [(KLLoss(), "kl"), (MarginMSELoss(), "margin_mse")])
def test_what_compares_candidates_refuses_one_for_each_anchor(loss: nn.Module, name: str) -> None:
    with pytest.raises(DataError, match=f"The loss {name} compares the candidates of an anchor.*\nGive two or more"):
        loss(*batch(3, 1))


@pytest.mark.parametrize(
    ("loss", "candidates"), [(loss, count) for loss in ANY_NUMBER for count in (1, 3)] + [(loss, 3) for loss in SEVERAL]
)
@pytest.mark.parametrize("anchors", [1, 4])
@pytest.mark.parametrize("what", ["any scores", "equal scores", "equal points", "whole numbers", "extreme scores"])
def test_gradients_are_finite(loss: nn.Module, candidates: int, anchors: int, what: str) -> None:
    embeddings, scores, references = batch(anchors, candidates)
    if what == "equal scores":
        scores = torch.ones_like(scores)
    if what == "equal points":
        references = embeddings.detach()[:, None].repeat(1, candidates, 1).requires_grad_()
    if what == "whole numbers":
        scores = scores.sign().long()
    if what == "extreme scores":
        scores = scores.sign() * 1e4
    value = loss(embeddings, scores, ref_emb=references)
    value.backward()
    assert value.isfinite()
    for tensor in (embeddings, references):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("loss", [*ANY_NUMBER, *SEVERAL])
def test_gradients(loss: nn.Module) -> None:
    anchors, scores, candidates = batch(3, 3)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, scores, ref_emb=b), (anchors, candidates))


@pytest.mark.parametrize("loss", [*ANY_NUMBER, *SEVERAL])
def test_the_order_of_a_batch_does_not_matter(loss: nn.Module) -> None:
    anchors, scores, candidates = batch(5, 3)
    rows = torch.tensor([3, 0, 4, 1, 2])
    value = loss(anchors, scores, ref_emb=candidates)
    torch.testing.assert_close(loss(anchors[rows], scores[rows], ref_emb=candidates[rows]), value)
