"""What a graph takes, measured, and what is done where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetuner_core.data.batches import PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import TrainingError
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.modeling.embed import Limit, tokens_at_once
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training import memory
from finetuner_core.training.feed import feeds_of
from finetuner_core.training.gradients import Work
from finetuner_core.training.memory import GraphBudget, free_memory, is_out_of_memory
from finetuner_core.training.objective import Objective
from finetuner_core.training.step import Step

pytestmark = pytest.mark.usefixtures("acme")

CPU = torch.device("cpu")
TEXTS = [f"text {'y' * number}" for number in range(12)]
DATA = Dataset((Column("anchor", "text", TEXTS[:6]), Column("positive", "text", TEXTS[6:])))


def objective(model: EmbeddingModel) -> Objective:
    return Objective(DATA, MemoryLoss(InfoNCELoss(), model.output_dim, 8), PairBatches(DATA, 6, 0))


def gradients(model: EmbeddingModel, chunk_size: int | None = None) -> tuple[dict[str, Tensor], Objective]:
    torch.manual_seed(0)
    own, feeds = objective(model), feeds_of(model, DATA, None)
    prepared = [feed.prepare(range(6), torch.Generator()) for feed in feeds]
    step = Step(list(model.parameters()), CPU, torch.float32, chunk_size)
    step.backward(own, feeds, prepared, range(6))
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, own


def without_memory(monkeypatch: pytest.MonkeyPatch, model: EmbeddingModel, fits: int) -> list[int]:
    """Has the encoder run out of memory on more items than fit, and notes how many it was given."""
    encoder, given = model.encoder("text"), list[int]()
    real = encoder.forward

    def forward(batch: Any) -> Tensor:
        count = len(next(iter(batch.values())))
        given.append(count)
        if torch.is_grad_enabled() and count > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(batch)

    monkeypatch.setattr(encoder, "forward", forward)
    return given


@pytest.mark.parametrize("fits", [1, 2, 5])
def test_running_out_of_memory_ends_in_smaller_chunks_and_the_same_gradients(
    fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("letters")
    expected, remembered = gradients(model)
    model.zero_grad()
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    given = without_memory(monkeypatch, model, fits)
    found, own = gradients(model)
    assert max(given) > fits >= given[-1]
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    # What the loss remembers, it remembers once.
    torch.testing.assert_close(own.buffers(), remembered.buffers())


def test_one_item_that_does_not_fit_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("letters")
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    without_memory(monkeypatch, model, 0)
    # The measurement itself is the first that fails.
    with pytest.raises(TrainingError, match=r"not enough memory on cpu for one item alone\.\nCut texts shorter"):
        gradients(model)


def test_another_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("letters")

    def fail(batch: Any) -> Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model.encoder("text"), "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gradients(model)


class Keeps(nn.Module):
    """An encoder whose graph is known: of each item `factor` floats for every token."""

    padding_free = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.ones(1)), factor

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return (batch["x"] * self.weight).sum(1, keepdim=True)


class Numbers:
    """Items that are numbers of tokens."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def length(self, prepared: int) -> int:
        return prepared

    def collate(self, prepared: Sequence[int]) -> dict[str, Tensor]:
        return {"x": torch.ones(len(prepared), max(prepared) * self.factor)}


def work_of(items: list[int], factor: int = 10) -> Work:
    encoder: Any = Keeps(factor)
    return Work.of(encoder, Numbers(factor), items, Limit(1000))


def test_a_graph_is_measured_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 70_000 + 12)
    budget, work = GraphBudget([nn.Parameter(torch.ones(1))], CPU), work_of([100, 50, 50])
    assert budget.bytes == 2**16
    # x, 10 floats for each token: 40 bytes, and nothing else that is not the weight.
    assert memory._graph_bytes(work, 0, CPU, torch.float32) == 100 * 10 * 4
    assert budget.limit([work], torch.float32) is None
    assert not budget.is_larger(work)
    limit = budget.limit([work_of([100] * 20)], torch.float32)
    assert limit == Limit(2**16 // 40)
    huge = work_of([2000])
    assert budget.limit([huge], torch.float32) == Limit(2**16 // 40)
    assert budget.is_larger(huge)


def test_a_batch_that_does_not_fit_takes_the_memory_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 2**20)
    budget = GraphBudget([], CPU)
    assert budget.limit([work_of([100] * 250)], torch.float32) is None  # 1,000,000 bytes
    assert budget.limit([work_of([100] * 270)], torch.float32) == Limit(tokens_at_once(CPU))
    assert budget.limit([work_of([100] * 27_000)], torch.float32) == Limit(tokens_at_once(CPU))


def test_what_is_frozen_as_a_whole_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 2**20)
    budget, work = GraphBudget([], CPU), work_of([100] * 250)
    work.encoder.requires_grad_(requires_grad=False)
    assert memory._graph_bytes(work, 0, CPU, torch.float32) == 0
    assert budget.limit([work], torch.float32) is None


def test_what_ran_out_of_memory_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 2**30)
    budget, work = GraphBudget([], CPU), work_of([100] * 250)
    assert budget.limit([work], torch.float32) is None
    budget.halve()
    assert budget.bytes == 500_000  # of its 1,000,000, not of the budget
    assert budget.limit([work], torch.float32) == Limit(tokens_at_once(CPU))
    budget.halve()
    assert budget.limit([work], torch.float32) == Limit(tokens_at_once(CPU) // 2)


def test_what_is_measured_draws_no_random_numbers_and_learns_no_statistics() -> None:
    model = build_model("letters", dropout=0.5)
    use_fast_dropout(model)
    model.train()
    work = Work.of(model.encoder("text"), model.preprocess("text"), model.preprocess("text").prepare(TEXTS), Limit(64))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert memory._graph_bytes(work, 0, CPU, torch.float32) > 0
    assert torch.equal(torch.rand(3), expected)


def test_so_many_items_at_once_are_asked_for_and_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("letters")
    expected, _ = gradients(model)
    model.zero_grad()
    given = without_memory(monkeypatch, model, 3)
    found, _ = gradients(model, chunk_size=3)
    assert max(given) == 3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_where_nobody_tells_how_much_is_free_everything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    budget = GraphBudget([], CPU)
    assert budget.limit([work_of([100] * 50)], torch.float32) is None
    budget.halve()
    assert budget.bytes == 2**29


def test_free_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = memory._of_machine()
    assert machine is not None
    assert machine > 2**20
    for name, content in {
        "memory.max": "1000000",
        "memory.current": "400000",
        "memory.stat": "inactive_file 1000",
    }.items():
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory(CPU) == 601_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) == pytest.approx(machine, rel=0.5)
    assert free_memory(torch.device("meta")) is None


def test_errors_of_memory_are_told_from_others() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
