"""The memory against loops over all that it has seen, and against a queue of Python's own."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.errors import OptionError
from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.matryoshka import matryoshka
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.losses.triplet import TripletLoss

SIZE, DIM = 10, 4
LOSSES = [InfoNCELoss(temperature=0.2), ContrastiveLoss(margin=1.0), TripletLoss(margin=1.0)]


def points(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, DIM, generator=generator, dtype=torch.float64), dim=1)


def memory(loss: nn.Module, size: int = SIZE) -> MemoryLoss:
    return MemoryLoss(loss, DIM, size).double()


@pytest.mark.parametrize("loss", LOSSES)
def test_of_labels_it_is_the_loss_over_the_batch_and_what_was_seen_last(loss: nn.Module) -> None:
    remembering, seen = memory(loss), deque[tuple[Tensor, int]](maxlen=SIZE)
    for step, count in enumerate((4, 5, 4, 6, 3)):
        embeddings, labels = points(count, step).requires_grad_(), torch.arange(count) % 3
        rows = [*embeddings, *(row for row, _ in seen)]
        every = torch.tensor([*labels.tolist(), *(label for _, label in seen)])
        itself = torch.eye(count, len(rows), dtype=torch.bool)
        expected = loss(embeddings, labels, torch.stack(rows), every, itself)

        value = remembering(embeddings, labels)

        torch.testing.assert_close(value, expected)
        gradients = [torch.autograd.grad(each, embeddings)[0] for each in (value, expected)]
        torch.testing.assert_close(*gradients)
        seen.extend(zip(embeddings.detach(), labels.tolist(), strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_of_pairs_what_was_seen_last_is_negative(loss: nn.Module) -> None:
    remembering, seen = memory(loss), deque[Tensor](maxlen=SIZE)
    for step, count in enumerate((3, 2, 3)):
        # Labels are those of the batch, the same in each; half of the references are hard negatives.
        anchors, labels = points(count, step), torch.arange(count)
        references, ref_labels = points(2 * count, step + 100), torch.arange(2 * count)
        every = torch.cat([ref_labels, torch.arange(1000, 1000 + len(seen))])
        expected = loss(anchors, labels, torch.stack([*references, *seen]), every)
        torch.testing.assert_close(remembering(anchors, labels, references, ref_labels, items=ref_labels), expected)
        seen.extend(references)


def test_before_anything_is_remembered_it_is_the_loss_itself() -> None:
    embeddings, labels = points(6, 1), torch.arange(6) % 2
    for loss in LOSSES:
        torch.testing.assert_close(memory(loss)(embeddings, labels), loss(embeddings, labels))


def test_what_is_remembered_is_known_by_its_number_and_can_be_excluded() -> None:
    loss = InfoNCELoss(temperature=0.2)
    remembering = memory(loss, 5)
    assert remembering.items.tolist() == [-1] * 5
    documents = points(3, 1)
    remembering(points(3, 0), torch.arange(3), documents, torch.arange(3), items=torch.tensor([7, 8, 9]))
    assert remembering.items.tolist() == [-1, -1, 7, 8, 9]

    # The first anchor is known to belong to number 8 as well.
    anchors, others, rows = points(2, 2), points(2, 3), torch.arange(2)
    known = torch.zeros(2, 2 + 5, dtype=torch.bool)
    known[0, 2:] = remembering.items == 8
    value = remembering(anchors, rows, others, rows, excluded=known, items=torch.tensor([4, 5]))

    expected = [
        loss(anchors[:1], rows[:1], torch.cat([others, documents[[0, 2]]]), torch.tensor([0, 1, 2, 3])),
        loss(anchors[1:], rows[1:], torch.cat([others, documents]), torch.tensor([0, 1, 2, 3, 4])),
    ]
    torch.testing.assert_close(value, torch.stack(expected).mean())
    assert remembering.items.tolist() == [7, 8, 9, 4, 5]


def test_what_is_excluded_of_a_batch_stays_so() -> None:
    loss, embeddings, labels = InfoNCELoss(temperature=0.2), points(5, 1), torch.arange(5) % 2
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[0, 1] = excluded[1, 0] = True
    value = memory(loss)(embeddings, labels, excluded=F.pad(excluded, (0, SIZE)))
    torch.testing.assert_close(value, loss(embeddings, labels, excluded=excluded))


def test_a_batch_larger_than_the_memory_leaves_its_end() -> None:
    remembering, embeddings = memory(InfoNCELoss(), 3), points(5, 1)
    remembering(embeddings, torch.arange(5) % 2)
    assert torch.equal(remembering.embeddings, embeddings[2:])
    assert remembering.labels.tolist() == [0, 1, 0]


def test_a_state_that_was_saved_goes_on_where_it_was() -> None:
    one, other = memory(InfoNCELoss()), memory(InfoNCELoss())
    for step in range(3):
        one(points(4, step), torch.arange(4) % 2, items=torch.arange(4))
    other.load_state_dict(one.state_dict())
    embeddings, labels = points(4, 9), torch.arange(4) % 2
    assert torch.equal(one(embeddings, labels), other(embeddings, labels))
    assert torch.equal(one.items, other.items)


def test_in_evaluation_nothing_is_remembered() -> None:
    remembering = memory(InfoNCELoss()).eval()
    remembering(points(4, 1), torch.arange(4) % 2)
    assert not remembering.held.any()


def test_no_gradient_goes_into_the_past() -> None:
    remembering, labels = memory(InfoNCELoss(temperature=0.5)), torch.arange(4) % 2
    past = points(4, 1).requires_grad_()
    remembering(past, labels)
    now = points(4, 2).requires_grad_()
    value = remembering(now, labels)
    # Remembering the next batch leaves the graph of this one whole.
    remembering(points(4, 3), labels)
    value.backward()
    assert past.grad is None
    assert now.grad is not None
    assert now.grad.any()


def test_it_goes_around_a_loss_of_several_widths() -> None:
    remembering = memory(matryoshka(lambda _: InfoNCELoss(temperature=0.2), (DIM, 2)))
    past, now, labels = points(4, 1), points(4, 2), torch.arange(4) % 2
    remembering(past, labels)
    value = remembering(now, labels)
    itself, every = torch.eye(4, 8, dtype=torch.bool), torch.cat([labels, labels])
    expected = sum(
        InfoNCELoss(temperature=0.2)(rows[:4], labels, rows, every, itself)
        for rows in (torch.cat([now, past]), F.normalize(torch.cat([now, past])[:, :2], dim=1))
    )
    torch.testing.assert_close(value, expected)


class _Plain(nn.Module):
    def forward(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None = None, ref_labels: Tensor | None = None
    ) -> Tensor:
        return embeddings.sum()


def test_a_loss_that_cannot_be_told_which_pairs_do_not_count_is_refused() -> None:
    with pytest.raises(OptionError, match=r"_Plain cannot be told which pairs do not count.*\nLeave out memory"):
        memory(_Plain())


def test_what_does_not_fit_is_refused() -> None:
    remembering, rows = memory(InfoNCELoss()), torch.arange(4)
    with pytest.raises(ValueError, match=r"excluded is \(4, 4\), and the pairs with those of the memory are \(4, 14\)"):
        remembering(points(4, 1), rows, points(4, 2), rows, torch.zeros(4, 4, dtype=torch.bool), items=rows)
    with pytest.raises(ValueError, match="belongs to later anchors: give them"):
        remembering(points(4, 1), rows, points(4, 2), rows)
    with pytest.raises(ValueError, match="not for scores"):
        remembering(points(4, 1), torch.zeros(4, 2), points(8, 2).reshape(4, 2, DIM))


def test_more_than_there_is_memory_for_is_refused() -> None:
    with pytest.raises(OptionError, match=r"embeddings of width 4 do not fit into memory\.\nRemember fewer"):
        memory(InfoNCELoss(), 10**15)
