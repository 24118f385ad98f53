"""The best weights of a run are those it ends with, and it ends where nothing gets better."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from finetuner_core.training.best import BestWeights, Check


def run(
    folder: Path, values: Sequence[float], *, every: int = 1, patience: int | None = None, steps: int | None = None
) -> tuple[BestWeights[float], nn.Module, list[dict[str, torch.Tensor]]]:
    """A run whose evaluations give these values, one after the other; each step changes every weight."""
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    linear.bias.requires_grad_(False)
    model = nn.Sequential(linear, nn.BatchNorm1d(2))
    left = iter(values)
    best = BestWeights({"model": model}, lambda: next(left), float, folder, every=every, patience=patience)
    states = []
    total = steps or len(values) * every
    for step in range(1, total + 1):
        with torch.no_grad():
            linear.weight.add_(1)
            model(torch.randn(4, 3))  # moves the running statistics
        states.append(copy.deepcopy(model.state_dict()))
        if best.after_step(step, total):
            break
    return best, model, states


@pytest.mark.parametrize("values", [[0.1, 0.5, 0.3], [0.5, 0.1, 0.2], [0.1, 0.2, 0.3], [0.4, 0.4, 0.1]])
def test_the_weights_of_the_best_evaluation_come_back(tmp_path: Path, values: list[float]) -> None:
    best, model, states = run(tmp_path, values)
    first = values.index(max(values))
    assert best.restore() == Check(first + 1, max(values), True)
    assert best.best == max(values)
    assert all(torch.equal(tensor, states[first][name]) for name, tensor in model.state_dict().items())


def test_it_measures_every_few_steps_and_at_the_end(tmp_path: Path) -> None:
    best, _, _ = run(tmp_path, [0.1, 0.2, 0.3], every=4, steps=10)
    assert [(check.step, check.is_best) for check in best.checks] == [(4, True), (8, True), (10, True)]


@pytest.mark.parametrize(("patience", "done"), [(1, 3), (2, 4), (3, 5), (None, 6)])
def test_it_ends_after_so_many_evaluations_without_a_better_one(
    tmp_path: Path, patience: int | None, done: int
) -> None:
    best, _, states = run(tmp_path, [0.1, 0.5, 0.3, 0.5, 0.2, 0.1], patience=patience)
    assert len(states) == len(best.checks) == done


def test_what_stands_still_is_not_kept_and_not_touched(tmp_path: Path) -> None:
    best, model, _ = run(tmp_path, [0.2, 0.1])
    bias = model.get_parameter("0.bias")
    bias.data.fill_(7)
    best.restore()
    assert bias.tolist() == [7, 7]


def test_a_number_that_is_none_is_never_the_best(tmp_path: Path) -> None:
    best, _, _ = run(tmp_path, [0.3, float("nan"), 0.2])
    assert [check.is_best for check in best.checks] == [True, False, False]
