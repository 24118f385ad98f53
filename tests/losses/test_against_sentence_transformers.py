"""The losses against those of sentence-transformers, where both define the same thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.losses.cosent import CoSENTLoss
from finetuner_core.losses.cosine import CosineLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.kl import KLLoss
from finetuner_core.losses.margin_mse import MarginMSELoss
from finetuner_core.losses.matryoshka import matryoshka

losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

DIM = 12
CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-6}


class GivenModel(nn.Module):
    """A model whose embeddings are given to it."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["given"]}

    def get_embedding_dimension(self) -> int:
        return DIM


MODEL = GivenModel()


def points(count: int, columns: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """What a model would have computed, and the embeddings of length 1 that are made of it."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(columns, count, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
    return rows, list(F.normalize(rows, dim=2))


def same(own: Tensor, theirs: Tensor, rows: Tensor) -> None:
    """Compares values and gradients."""
    torch.testing.assert_close(own, theirs.to(own.dtype), **CLOSE)
    gradients = [torch.autograd.grad(value, rows, retain_graph=True)[0] for value in (own, theirs)]
    torch.testing.assert_close(*gradients, **CLOSE)


def scored(own: nn.Module, theirs: nn.Module, candidates: int, seed: int, *, spread: float = 1.0) -> None:
    rows, (anchors, *others) = points(9, candidates + 1, seed)
    scores = torch.randn(9, candidates, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (scores * spread).round(decimals=1)
    value = theirs([{"given": column} for column in (anchors, *others)], scores if candidates > 1 else scores[:, 0])
    same(own(anchors, scores, ref_emb=torch.stack(others, dim=1)), value, rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_cosent(seed: int, temperature: float) -> None:
    scored(CoSENTLoss(temperature=temperature), losses.CoSENTLoss(MODEL, scale=1 / temperature), 1, seed)


@pytest.mark.parametrize("seed", range(3))
def test_cosine(seed: int) -> None:
    # They bring the scores to float32.
    rows, (anchors, candidates) = points(9, 2, seed)
    scores = torch.rand(9, 1, generator=torch.Generator().manual_seed(seed))
    theirs = losses.CosineSimilarityLoss(MODEL)([{"given": anchors}, {"given": candidates}], scores[:, 0])
    same(CosineLoss()(anchors, scores, candidates[:, None]), theirs, rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("candidates", [2, 4])
def test_margin_mse(seed: int, candidates: int) -> None:
    scored(MarginMSELoss(), losses.MarginMSELoss(MODEL), candidates, seed, spread=5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(1.0, 1.0), (0.05, 2.0)])
def test_kl(seed: int, candidates: int, temperature: float, teacher_temperature: float) -> None:
    own = KLLoss(temperature=temperature, teacher_temperature=teacher_temperature)
    theirs = losses.DistillKLDivLoss(MODEL, student_temperature=temperature, teacher_temperature=teacher_temperature)
    scored(own, theirs, candidates, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("weights", [None, {DIM: 1.0, 6: 0.5, 2: 0.25}])
def test_matryoshka(seed: int, negatives: int, weights: dict[int, float] | None) -> None:
    rows, columns = points(7, 2 + negatives, seed)
    temperature = InfoNCELoss(temperature=0.05).temperature.item()
    own = matryoshka(lambda _: InfoNCELoss(temperature=0.05), (DIM, 6, 2), weights)
    inner = losses.MultipleNegativesRankingLoss(MODEL, scale=1 / temperature)
    theirs = losses.MatryoshkaLoss(MODEL, inner, [DIM, 6, 2], weights and list(weights.values()))
    value = theirs([{"given": column} for column in columns], torch.empty(0))
    references = torch.cat(columns[1:])
    numbers = torch.arange(len(references))
    same(own(columns[0], numbers[:7], ref_emb=references, ref_labels=numbers), value, rows)
