"""The losses against those of pytorch-metric-learning, where both define the same thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn import functional as F

from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.losses.triplet import TripletLoss

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-6}


def batch(seed: int, *, with_references: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        rows = torch.randn(count, 6, generator=generator, dtype=torch.float64)
        return F.normalize(rows, dim=1), torch.randint(5, (count,), generator=generator)

    embeddings, labels = draw(24)
    if not with_references:
        return {"embeddings": embeddings, "labels": labels}
    ref_emb, ref_labels = draw(18)
    return {"embeddings": embeddings, "labels": labels, "ref_emb": ref_emb, "ref_labels": ref_labels}


@pytest.fixture(params=[(seed, with_references) for seed in range(3) for with_references in (False, True)])
def given(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    seed, with_references = request.param
    return batch(seed, with_references=with_references)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_infonce_is_nt_xent(given: dict[str, Tensor], temperature: float) -> None:
    own = InfoNCELoss(temperature=temperature)
    theirs = losses.NTXentLoss(temperature=own.temperature.item())
    torch.testing.assert_close(own(**given), theirs(**given), **CLOSE)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_hard_triplets(given: dict[str, Tensor], margin: float) -> None:
    mined = miners.BatchHardMiner()(given["embeddings"], given["labels"], given.get("ref_emb"), given.get("ref_labels"))
    theirs = losses.TripletMarginLoss(margin=margin, reducer=reducers.MeanReducer())
    torch.testing.assert_close(TripletLoss(margin=margin)(**given), theirs(**given, indices_tuple=mined), **CLOSE)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_semihard_triplets(given: dict[str, Tensor], margin: float) -> None:
    miner = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard")
    mined = miner(given["embeddings"], given["labels"], given.get("ref_emb"), given.get("ref_labels"))
    theirs = losses.TripletMarginLoss(margin=margin, reducer=reducers.MeanReducer())
    torch.testing.assert_close(
        TripletLoss(margin=margin, mining="semihard")(**given), theirs(**given, indices_tuple=mined), **CLOSE
    )


def test_what_draws_positives_together(given: dict[str, Tensor]) -> None:
    theirs = losses.ContrastiveLoss(pos_margin=0, neg_margin=0, distance=distances.LpDistance(power=2))
    torch.testing.assert_close(ContrastiveLoss(margin=0)(**given), theirs(**given), **CLOSE)


class _SquaredReducer(reducers.AvgNonZeroReducer):  # type: ignore[misc]
    """Theirs is linear in the distance: squared here, it is the paper's."""

    def element_reduction_helper(self, losses: Tensor, embeddings: Tensor) -> Tensor:
        reduced: Tensor = super().element_reduction_helper(losses.square(), embeddings)
        return reduced


@pytest.mark.parametrize("margin", [0.5, 1.5])
def test_contrastive(given: dict[str, Tensor], margin: float) -> None:
    theirs = losses.ContrastiveLoss(pos_margin=0, neg_margin=margin, reducer=_SquaredReducer())
    torch.testing.assert_close(ContrastiveLoss(margin=margin)(**given), theirs(**given), **CLOSE)


@pytest.mark.parametrize("kind", ["infonce", "contrastive"])
def test_cross_batch_memory(kind: str) -> None:
    """Theirs counts the batch among what is remembered: it has to be larger by that."""
    own: Any = InfoNCELoss(temperature=0.2)
    wrapped = losses.NTXentLoss(temperature=own.temperature.item())
    if kind == "contrastive":
        own = ContrastiveLoss(margin=0.9)
        wrapped = losses.ContrastiveLoss(pos_margin=0, neg_margin=0.9, reducer=_SquaredReducer())
    remembering = MemoryLoss(own, 6, 60).double()
    theirs = losses.CrossBatchMemory(wrapped, embedding_size=6, memory_size=60 + 24)
    for seed in range(6):
        given = batch(seed, with_references=False)
        torch.testing.assert_close(remembering(**given), theirs(**given), **CLOSE)
