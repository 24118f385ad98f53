"""Pairs that do not count: each loss against the library called with all others, and against batches without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import miners
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor

from finetuner_core.losses.build import build_loss, loss_options
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.plugin import OptionError
from finetuner_metric_learning.parts import MINER
from finetuner_metric_learning.rows import LOSSES

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")

MASKED = [row.name for row in LOSSES if row.masks and not row.width]
BETWEEN = [row.name for row in LOSSES if row.masks and not row.width and row.pairs]


def some(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.25


def pairs_left(labels: Tensor, others: Tensor, excluded: Tensor, *, itself: bool) -> tuple[Tensor, ...]:
    """The library's indices, pair by pair."""
    found: list[list[int]] = [[], [], [], []]
    for i in range(len(labels)):
        for j in range(len(others)):
            if not excluded[i, j] and (itself or i != j):
                place = 0 if labels[i] == others[j] else 2
                found[place].append(i)
                found[place + 1].append(j)
    return tuple(torch.tensor(each, dtype=torch.long) for each in found)


@pytest.mark.parametrize("name", MASKED)
def test_it_is_the_librarys_over_the_pairs_that_are_left(
    name: str, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    excluded = some(1, 9, 9)
    excluded |= excluded.T.clone()  # the library takes some pairs once for both of their items
    ours, theirs = build(name), library(name)
    value = ours(vectors(0), labels, excluded=excluded)
    expected = theirs(vectors(0), labels, pairs_left(labels, labels, excluded, itself=False))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert abs(value - build(name)(vectors(0), labels)) > 1e-5


@pytest.mark.parametrize("name", BETWEEN)
def test_between_embeddings_and_references_too(
    name: str, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    others, excluded = labels[:7].flip(0), some(2, 9, 7)
    ours, theirs = build(name), library(name)
    embeddings, references = vectors(0), vectors(1, 7)
    value = ours(embeddings, labels, references, others, excluded)
    indices = pairs_left(labels, others, excluded, itself=True)
    expected = theirs(embeddings, labels, indices, references, others)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert abs(value - build(name)(embeddings, labels, references, others)) > 1e-5


@pytest.mark.parametrize("name", BETWEEN)
def test_where_a_reference_lies_that_never_counts_does_not_matter(
    name: str, build: Any, vectors: Any, labels: Tensor
) -> None:
    embeddings, references, others = vectors(0), vectors(1), labels.clone()
    excluded = torch.zeros(9, 9, dtype=torch.bool)
    excluded[:, 4] = True
    value = build(name)(embeddings, labels, references, others, excluded)
    value.backward()
    assert not references.grad[4].any()
    moved, others[4] = references.detach().clone(), 2
    moved[4] = vectors(2)[0]
    torch.testing.assert_close(build(name)(embeddings, labels, moved, others, excluded), value)


@pytest.mark.parametrize("name", MASKED)
def test_where_all_is_excluded_it_is_a_zero_that_can_be_differentiated(
    name: str, build: Any, vectors: Any, labels: Tensor
) -> None:
    embeddings = vectors(0)
    value = build(name)(embeddings, labels, excluded=torch.ones(9, 9, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("loss", ["TripletMarginLoss", "ContrastiveLoss"])
@pytest.mark.parametrize("name", MINER.classes)
def test_what_a_miner_chose_counts_without_them(
    name: str, loss: str, between: bool, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    excluded, embeddings = some(3, 9, 9), vectors(0)
    batch = (embeddings, labels, vectors(1), labels.clone()) if between else (embeddings, labels, None, None)
    torch.manual_seed(0)
    value = build(loss, miner=name)(*batch, excluded)
    torch.manual_seed(0)
    chosen = getattr(miners, name)()(*batch)
    halves = [chosen] if len(chosen) == 3 else [chosen[:2], chosen[2:]]
    left: list[Tensor] = []
    for half in halves:
        rows = list(zip(*(index.tolist() for index in half), strict=True))
        rows = [row for row in rows if not any(excluded[row[0], other] for other in row[1:])]
        left += [torch.tensor([row[place] for row in rows], dtype=torch.long) for place in range(len(half))]
    expected = library(loss)(embeddings, labels, tuple(left), *batch[2:])
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["TripletMarginLoss", "MarginLoss"])
def test_triplets_are_drawn_as_many_as_were_asked_for(
    name: str, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    excluded, embeddings = some(4, 9, 9), vectors(0)
    torch.manual_seed(0)
    value = build(name, triplets_per_anchor="2")(embeddings, labels, excluded=excluded)
    torch.manual_seed(0)
    seen = [index.tolist() for index in loss_and_miner_utils.get_random_triplet_indices(labels, t_per_anchor=2)]
    assert len(seen[0]) == 2 * 9
    rows = [row for row in zip(*seen, strict=True) if not excluded[row[0], row[1]] and not excluded[row[0], row[2]]]
    left = tuple(torch.tensor(each) for each in zip(*rows, strict=True))
    torch.testing.assert_close(value, library(name)(embeddings, labels, left))


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
def test_a_row_says_whether_single_pairs_can_be_left_out(row: Any, build: Any, vectors: Any, labels: Tensor) -> None:
    assert takes_excluded(build(row.name)) == (row.masks and not row.width)


@pytest.mark.parametrize("name", ["AngularLoss", "NCALoss"])
def test_the_library_compares_more_than_it_is_handed(name: str, library: Any, vectors: Any, labels: Tensor) -> None:
    """Where one of these no longer holds, its row can say that it masks."""
    embeddings, references = vectors(0), vectors(1)
    excluded = torch.zeros(9, 9, dtype=torch.bool)
    excluded[:, 4] = True
    indices = pairs_left(labels, labels, excluded, itself=True)
    library(name)(embeddings, labels, indices, references, labels.clone()).backward()
    assert references.grad[4].any()


def test_with_swap_a_positive_is_compared_with_a_negative_and_nothing_can_be_left_out(build: Any) -> None:
    assert not takes_excluded(build("TripletMarginLoss", swap=True))


@pytest.mark.parametrize("name", MASKED)
def test_with_a_memory_or_without(name: str) -> None:
    options = loss_options(name, {})
    if name in BETWEEN:
        build_loss(name, 6, options, memory=10)
    else:
        with pytest.raises(OptionError, match=f"The loss {name} cannot compare a batch with those before it"):
            build_loss(name, 6, options, memory=10)
