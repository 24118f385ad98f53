"""Pairs and distances, against loops and the standard library."""

from __future__ import annotations

import math

import pytest
import torch

from finetuner_core.losses.pairs import distances, form_pairs, nothing

LABELS = torch.tensor([3, 1, 3, 2, 1, 3])
REF_LABELS = torch.tensor([1, 3, 7, 3])


def test_an_item_is_neither_its_own_positive_nor_its_own_negative() -> None:
    pairs = form_pairs(torch.randn(6, 2), LABELS, None, None)
    for i in range(6):
        for j in range(6):
            same = LABELS[i].item() == LABELS[j].item()
            assert pairs.positive[i, j].item() == (same and i != j)
            assert pairs.negative[i, j].item() == (not same)


def test_references_are_paired_with_every_item() -> None:
    references = torch.randn(4, 2)
    pairs = form_pairs(torch.randn(6, 2), LABELS, references, REF_LABELS)
    assert pairs.ref_emb is references
    for i in range(6):
        for j in range(4):
            same = LABELS[i].item() == REF_LABELS[j].item()
            assert pairs.positive[i, j].item() == same
            assert pairs.negative[i, j].item() == (not same)


@pytest.mark.parametrize(
    ("ref_emb", "ref_labels", "words"),
    [
        (torch.randn(4, 2), None, "go together"),
        (None, REF_LABELS, "go together"),
        (torch.randn(3, 2), REF_LABELS, "one label"),
    ],
)
def test_half_a_reference_is_refused(ref_emb: torch.Tensor | None, ref_labels: torch.Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        form_pairs(torch.randn(6, 2), LABELS, ref_emb, ref_labels)


def test_every_embedding_needs_a_label() -> None:
    with pytest.raises(ValueError, match="one label"):
        form_pairs(torch.randn(5, 2), LABELS, None, None)


def test_distances_are_euclidean() -> None:
    rows, references = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    expected = [[math.dist(a, b) for b in references.tolist()] for a in rows.tolist()]
    torch.testing.assert_close(distances(rows, references), torch.tensor(expected, dtype=torch.float64))


def test_the_gradient_of_a_distance() -> None:
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    references = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distances, (rows, references))


def test_equal_items_are_0_apart_and_do_not_pull() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    measured = distances(rows, rows)
    assert measured[0, 1].item() == 0
    (gradient,) = torch.autograd.grad(measured[0, 1], rows)
    assert gradient.tolist() == [[0, 0], [0, 0], [0, 0]]


def test_nothing_is_a_zero_with_a_graph() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    value = nothing(rows)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()
