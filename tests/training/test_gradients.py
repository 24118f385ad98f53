"""Chunked gradients: those of the whole batch at once, whatever the loss, and with dropout on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetuner_core.data.batches import PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.matryoshka import matryoshka
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.losses.siglip import SigLIPLoss
from finetuner_core.losses.triplet import TripletLoss
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.modeling.embed import Limit
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.gradients import LossOf, Work, backward, backward_in_chunks
from finetuner_core.training.objective import Objective

pytestmark = pytest.mark.usefixtures("acme")

CPU = torch.device("cpu")
TEXTS = [f"{word} number {'x' * (number % 9)}{number}" for number, word in enumerate(["a", "the longer", "b"] * 8)]
DATA = Dataset((Column("anchor", "text", TEXTS[:12]), Column("positive", "text", TEXTS[12:])))
ROWS = list(range(12))

LOSSES: dict[str, Callable[[int], nn.Module]] = {
    "infonce": lambda dim: InfoNCELoss(learnable=True, symmetric=True),
    "siglip": lambda dim: SigLIPLoss(),
    "triplet with mining": lambda dim: TripletLoss(),
    "matryoshka": lambda dim: matryoshka(lambda width: InfoNCELoss(learnable=True), [dim, dim // 2]),
    "memory": lambda dim: MemoryLoss(InfoNCELoss(learnable=True), dim, 16),
}


def build(loss: str, dropout: float) -> tuple[EmbeddingModel, Objective, LossOf]:
    model = build_model("letters", dropout=dropout)
    use_fast_dropout(model)
    model.train()
    objective = Objective(DATA, LOSSES[loss](model.output_dim), PairBatches(DATA, 12, 0))

    def loss_of(vectors: Any) -> Tensor:
        return objective.loss_of(vectors[0].split(12), ROWS)

    return model, objective, loss_of


def run(
    compute: Callable[..., float], loss: str, limit: Limit, dropout: float = 0.3
) -> tuple[float, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    model, objective, loss_of = build(loss, dropout)
    work = Work.of(model.encoder("text"), model.preprocess("text"), model.preprocess("text").prepare(TEXTS), limit)
    torch.manual_seed(1)
    values = [compute([work], loss_of, CPU, torch.float32) for _ in range(2)]  # the second sees the first's memory
    modules = nn.ModuleList([model, objective.loss])
    return values[-1], {n: p.grad for n, p in modules.named_parameters() if p.grad is not None}, torch.rand(3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("limit", [Limit(30), Limit(1), Limit(10_000), Limit(10_000, 5)])
def test_gradients_are_those_of_the_whole_batch(loss: str, limit: Limit) -> None:
    value, gradients, after = run(backward_in_chunks, loss, limit)
    expected, wanted, after_all = run(backward, loss, limit)
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == wanted.keys() != set()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()) + 1e-9)
    # And what is drawn afterwards is what would have been drawn.
    assert torch.equal(after, after_all)


def test_the_second_time_other_random_numbers_would_give_other_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted, _ = run(backward, "infonce", Limit(30))
    monkeypatch.setattr("finetuner_core.training.randomness.restore_random_state", lambda state, device: None)
    _, gradients, _ = run(backward_in_chunks, "infonce", Limit(30))
    assert any(not torch.allclose(gradients[name], wanted[name], rtol=1e-2) for name in wanted)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_dropout_chunks_of_any_size_give_the_same(loss: str) -> None:
    results = [run(backward_in_chunks, loss, limit, dropout=0.0) for limit in (Limit(25), Limit(100_000))]
    (value, gradients, _), (expected, wanted, _) = results
    assert value == pytest.approx(expected, rel=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-9)


def test_a_loss_that_leaves_an_encoder_out_is_no_error() -> None:
    model = build_model("letters")
    prepared = model.preprocess("text").prepare(TEXTS)
    other = copy.deepcopy(model)
    works = [Work.of(each.encoder("text"), each.preprocess("text"), prepared, Limit(40)) for each in (model, other)]
    backward_in_chunks(works, lambda vectors: vectors[0].sum(), CPU, torch.float32)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in other.parameters())


def test_a_tower_that_is_frozen_as_a_whole_is_no_error() -> None:
    model = build_model("letters")
    frozen = copy.deepcopy(model).requires_grad_(False)
    prepared = model.preprocess("text").prepare(TEXTS)
    for order in ((model, frozen), (frozen, model)):
        works = [Work.of(each.encoder("text"), each.preprocess("text"), prepared, Limit(40)) for each in order]
        backward_in_chunks(works, lambda vectors: (vectors[0] * vectors[1]).sum(), CPU, torch.float32)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
