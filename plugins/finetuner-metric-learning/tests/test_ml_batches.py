"""Batches that come up in training and that a loss must get over, and what the library would make of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.plugin import DataError
from finetuner_metric_learning.rows import LOSSES

ALL = pytest.mark.parametrize("name", [row.name for row in LOSSES])
# These are formed with the vectors of the classes, of which there always are some.
PROXIES = {row.name for row in LOSSES if row.width}
# Negatives alone make a loss here, and so do positives alone, as the library has it.
EACH_COUNTS = {
    "ContrastiveLoss",
    "GeneralizedLiftedStructureLoss",
    "IntraPairVarianceLoss",
    "MultiSimilarityLoss",
    "RankedListLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "ThresholdConsistentMarginLoss",
}


def checked(loss: Any, embeddings: Tensor, *arguments: Tensor | None) -> float:
    """The loss's value, once it and its gradients are seen to be numbers."""
    value = loss(embeddings, *arguments)
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters() if parameter.grad is not None)
    return float(value.detach())


@ALL
def test_where_no_pair_can_be_formed_the_loss_is_a_zero_that_can_be_differentiated(
    name: str, build: Any, vectors: Any
) -> None:
    alone = checked(build(name), vectors(0, 1), torch.tensor([0]))
    assert (alone == 0) == (name not in PROXIES)
    if next(row for row in LOSSES if row.name == name).pairs:
        none = torch.empty(0, 6), torch.empty(0, dtype=torch.long)
        assert checked(build(name), vectors(0, 1), torch.tensor([0]), *none) == 0


@ALL
def test_batches_without_positives_or_without_negatives_give_a_number(name: str, build: Any, vectors: Any) -> None:
    distinct = checked(build(name), vectors(0, 3), torch.arange(3))
    assert (abs(distinct) < 1e-6) == (name not in PROXIES | EACH_COUNTS)
    equal = checked(build(name), vectors(0, 3), torch.zeros(3, dtype=torch.long))
    assert (abs(equal) < 1e-6) == (name not in PROXIES | EACH_COUNTS)


@ALL
def test_equal_and_opposite_items_give_a_number(name: str, build: Any, vectors: Any, labels: Tensor) -> None:
    base = vectors(0).detach()
    equal, opposite, twins = base.clone(), base.clone(), base.clone()
    equal[1], equal[4] = base[0], base[3]  # within a class
    twins[3] = base[0]  # of two classes
    opposite[1], opposite[3] = -base[0], base[0]
    for batch in (equal, opposite, twins, base[:1].repeat(9, 1)):
        checked(build(name), batch.clone().requires_grad_(), labels)


# All but the one that takes the first pair of each class by its definition.
@pytest.mark.parametrize("name", [row.name for row in LOSSES if row.name != "NPairsLoss"])
def test_the_order_of_a_batch_does_not_matter(name: str, build: Any, vectors: Any, labels: Tensor) -> None:
    order = torch.tensor([5, 0, 7, 2, 3, 8, 1, 6, 4])
    in_order = build(name)(vectors(0), labels)
    torch.testing.assert_close(build(name)(vectors(0)[order], labels[order]), in_order, rtol=1e-5, atol=1e-6)


@ALL
def test_many_steps_can_be_taken(name: str, build: Any, vectors: Any, labels: Tensor) -> None:
    loss = build(name)
    raw = torch.nn.Parameter(vectors(0).detach().clone())
    optimizer = torch.optim.Adam([raw, *loss.parameters()], lr=0.02)
    values = []
    for _ in range(15):
        value = loss(F.normalize(raw, dim=1), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_the_histogram_of_dynamic_soft_margin_is_the_librarys_over_steps(
    build: Any, vectors: Any, labels: Tensor
) -> None:
    ours, theirs = build("DynamicSoftMarginLoss", momentum=0.5), losses.DynamicSoftMarginLoss(momentum=0.5)
    for seed in range(4):
        value = ours(vectors(seed), labels)
        value.backward()
        with torch.no_grad():
            torch.testing.assert_close(value, theirs(vectors(seed), labels))
    assert torch.equal(ours.loss.hist_, theirs.hist_)


def smooth_ap(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Equation 6 of https://arxiv.org/abs/2007.12163, each item among its own positives, item by item."""
    similarity, items = embeddings @ embeddings.T, range(len(labels))

    def rank(query: int, item: int, among: list[int]) -> Tensor:
        others = [similarity[query, other] - similarity[query, item] for other in among if other != item]
        return 1 + torch.stack(others).div(temperature).sigmoid().sum()

    precisions = []
    for query in items:
        positives = [item for item in items if labels[item] == labels[query]]
        shares = [rank(query, item, positives) / rank(query, item, list(items)) for item in positives]
        precisions.append(torch.stack(shares).mean())
    return 1 - torch.stack(precisions).mean()


def test_smooth_ap_is_the_papers_where_it_is_not_refused(build: Any, vectors: Any, labels: Tensor) -> None:
    order = torch.tensor([5, 0, 7, 2, 3, 8, 1, 6, 4])
    embeddings, mixed = vectors(0), labels[order]
    expected = smooth_ap(embeddings, mixed, 0.1)
    torch.testing.assert_close(build("SmoothAPLoss", temperature=0.1)(embeddings, mixed), expected)
    # As is, the library takes neighbours for positives.
    assert abs(losses.SmoothAPLoss(temperature=0.1)(embeddings, mixed) - expected) > 0.01
    six = torch.tensor([0, 0, 0, 1, 1, 1])
    wrong = losses.SmoothAPLoss(temperature=0.1)(embeddings[:6], six)
    assert abs(wrong - smooth_ap(embeddings[:6], six, 0.1)) > 0.01


@pytest.mark.parametrize(
    ("batch", "what"),
    [([0, 0, 0, 1, 1, 1], "2 of 3 items"), ([0, 0, 1, 1, 2, 2], "3 of 2 items"), ([0, 0, 0, 1], "2 of 1 to 3 items")],
)
def test_smooth_ap_refuses_batches_that_the_library_gets_wrong(
    batch: list[int], what: str, build: Any, vectors: Any
) -> None:
    with pytest.raises(DataError, match=rf"needs batches of n classes.*this one has {what}\.\nTake batch_size=16"):
        build("SmoothAPLoss")(vectors(0, len(batch)), torch.tensor(batch))


def test_a_miner_chooses_the_same_of_a_batch_that_smooth_ap_brings_in_order(
    build: Any, vectors: Any, labels: Tensor
) -> None:
    order = torch.tensor([5, 0, 7, 2, 3, 8, 1, 6, 4])
    loss = build("SmoothAPLoss", miner="BatchHardMiner")
    torch.testing.assert_close(loss(vectors(0)[order], labels[order]), loss(vectors(0), labels))


def test_what_is_repaired_is_broken_in_the_library(vectors: Any, labels: Tensor) -> None:
    """Where one of these no longer holds, its repair can go."""
    soft = losses.DynamicSoftMarginLoss()
    soft(vectors(0), labels).backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        soft(vectors(0), labels).backward()

    equal = vectors(0).detach()[:1].repeat(9, 1).requires_grad_()
    with (
        pytest.warns(UserWarning, match="Using a non-tuple sequence"),
        pytest.raises(RuntimeError, match=r"index .* is out of bounds"),
    ):
        losses.HistogramLoss()(equal, labels)

    assert losses.NCALoss()(vectors(0, 3), torch.arange(3)).isnan()

    losses.TupletMarginLoss()(equal, labels).backward()
    assert not torch.isfinite(equal.grad).all()


def test_the_boundaries_of_margin_loss_go_where_the_loss_goes(build: Any) -> None:
    loss = build("MarginLoss", num_classes=3).to("meta")
    assert loss.loss.beta.device.type == "meta"
    assert losses.MarginLoss(num_classes=3).to("meta").beta.device.type == "cpu"


def test_instance_loss_is_left_out_since_it_depends_on_the_order_of_the_batch(vectors: Any, labels: Tensor) -> None:
    order = torch.tensor([5, 0, 7, 2, 3, 8, 1, 6, 4])
    one, other = losses.InstanceLoss()(vectors(0), labels), losses.InstanceLoss()(vectors(0)[order], labels[order])
    assert abs(one - other) > 1
