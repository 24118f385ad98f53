"""What a loss is given of each form of data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finetuner_core.data.batches import PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.kl import KLLoss
from finetuner_core.losses.margin_mse import MarginMSELoss
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.training.objective import Objective

ANCHORS = ["a", "b", "a", "d"]
POSITIVES = ["p", "q", "r", "s"]
# Of the second row the negative is what the first row's anchor is known to find.
NEGATIVES = ["x", "r", "x", "y"]


def dataset(*columns: Sequence[str], scores: np.ndarray | None = None) -> Dataset:
    return Dataset(tuple(Column(f"c{i}", "text", list(items)) for i, items in enumerate(columns)), scores=scores)


def vectors(rows: int, columns: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.functional.normalize(torch.randn(rows, 3, generator=generator), dim=1) for _ in range(columns)]


class Told(nn.Module):
    """Keeps what it was told, and takes `excluded`."""

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        excluded: Tensor | None = None,
    ) -> Tensor:
        self.told = (embeddings, labels, ref_emb, ref_labels, excluded)
        return embeddings.sum()


class Untold(nn.Module):
    """Keeps what it was told, and knows labels alone."""

    def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:
        self.told = (labels, ref_labels)
        return embeddings.sum()


def test_hard_negatives_are_further_references_with_labels_of_their_own() -> None:
    data, loss = dataset(ANCHORS, POSITIVES, NEGATIVES), Told()
    columns = vectors(4, 3)
    Objective(data, loss, PairBatches(data, 4, 0)).loss_of(columns, [0, 1, 2, 3])
    embeddings, labels, ref_emb, ref_labels, excluded = loss.told
    assert ref_emb is not None
    assert ref_labels is not None
    assert excluded is not None
    assert torch.equal(embeddings, columns[0])
    assert torch.equal(ref_emb, torch.cat(columns[1:]))
    assert labels.tolist() == [0, 1, 2, 3]
    assert ref_labels.tolist() == list(range(8))
    # The two rows of "a" know each other's positive, wherever it stands.
    assert {(i, j) for i, j in excluded.nonzero().tolist()} == {(0, 2), (2, 0), (0, 5), (2, 5)}


def test_a_loss_that_cannot_be_told_gets_one_label_for_what_belongs_together() -> None:
    data, loss = dataset(ANCHORS, POSITIVES, NEGATIVES), Untold()
    Objective(data, loss, PairBatches(data, 4, 0)).loss_of(vectors(4, 3), [0, 1, 2, 3])
    labels, ref_labels = loss.told
    assert labels[0] == labels[2] == ref_labels[0] == ref_labels[2] == ref_labels[5]
    assert len({labels[0].item(), labels[1].item(), labels[3].item()}) == 3
    assert ref_labels[4].item() not in labels.tolist()


@pytest.mark.parametrize("candidates", [1, 3])
def test_scores_come_with_their_candidates(candidates: int) -> None:
    scores = np.arange(4 * candidates, dtype=np.float32).reshape(4, candidates)
    data, loss = dataset(ANCHORS, *[POSITIVES] * candidates, scores=scores), Told()
    columns = vectors(2, 1 + candidates)
    Objective(data, loss, PairBatches(data, 2, 0)).loss_of(columns, [3, 1])
    embeddings, given, ref_emb, ref_labels, excluded = loss.told
    assert ref_emb is not None
    assert torch.equal(embeddings, columns[0])
    assert given.tolist() == scores[[3, 1]].tolist()
    assert ref_emb.shape == (2, candidates, 3)
    for place, column in enumerate(columns[1:]):
        assert torch.equal(ref_emb[:, place], column)
    assert ref_labels is excluded is None


def test_with_a_memory_no_known_positive_of_an_earlier_batch_is_a_negative() -> None:
    data = dataset(ANCHORS, POSITIVES)
    part = Objective(data, MemoryLoss(InfoNCELoss(temperature=1), 3, 4), PairBatches(data, 2, 0))
    (first_anchor, first), (anchor, positive) = vectors(2, 2), vectors(2, 2, seed=1)
    part.loss_of([first_anchor, first], [0, 1])
    found = part.loss_of([anchor, positive], [2, 3])
    # Row 2 asks "a", to which the positive of row 0 is an answer; row 3 has all three others as negatives.
    similarity = (anchor @ torch.cat([positive, first]).T).exp()
    expected = [
        -torch.log(similarity[0, 0] / similarity[0, [0, 1, 3]].sum()),
        -torch.log(similarity[1, 1] / similarity[1].sum()),
    ]
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize("loss", [KLLoss(), MarginMSELoss()])
def test_a_loss_that_does_not_take_the_data_is_known_before_anything_is_computed(loss: nn.Module) -> None:
    for candidates, refused in ((1, True), (2, False)):
        data = dataset(ANCHORS, *[POSITIVES] * candidates, scores=np.ones((4, candidates), np.float32))
        objective = Objective(data, loss, PairBatches(data, 2, 0))
        if refused:
            with pytest.raises(DataError, match="compares the candidates of an anchor"):
                objective.check(3)
        else:
            objective.check(3)


def test_a_check_leaves_the_loss_as_it_was() -> None:
    data = dataset(ANCHORS, POSITIVES)
    loss = MemoryLoss(InfoNCELoss(temperature=1), 3, 4)
    Objective(data, loss, PairBatches(data, 2, 0)).check(3)
    assert not loss.held.any()
