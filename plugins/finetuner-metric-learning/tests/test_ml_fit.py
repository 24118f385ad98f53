"""Fine-tuning with losses of the plugin, from the data to the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finetuner
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.plugin import DataError, OptionError

FAST: dict[str, Any] = {
    "epochs": 80,
    "batch_size": 32,
    "learning_rate": 0.03,
    "model_options": {"hidden_sizes": (16,)},
    "device": "cpu",
    "quiet": True,
}
CLASSES = 8


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Vectors whose class is in four of ten numbers, beside six that vary far more."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 10)
    noise = random.normal(size=(80, 10)) * 3
    noise[:, :4] = random.normal(size=(CLASSES, 4))[labels] + random.normal(size=(80, 4)) / 10
    np.savez(tmp_path / "vectors.npz", vectors=noise, labels=labels)
    return tmp_path / "vectors.npz"


@pytest.fixture
def pairs() -> Dataset:
    """Pairs of vectors that share four of ten numbers."""
    random = np.random.default_rng(0)
    sides = random.normal(size=(2, 100, 10)) * 3
    sides[:, :, :4] = random.normal(size=(100, 4))
    return Dataset(tuple(Column(name, "vector", list(side)) for name, side in zip(("a", "b"), sides, strict=True)))


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("ProxyAnchorLoss", {}),  # fit knows the number of classes
        ("ArcFaceLoss", {"num_classes": CLASSES, "miner": "BatchHardMiner"}),
        ("metric-learning/MultiSimilarityLoss", {"miner": "MultiSimilarityMiner", "miner_epsilon": 0.2}),
        ("SupConLoss", {}),
        ("TripletMarginLoss", {"distance": "CosineSimilarity", "margin": 0.2, "miner": "TripletMarginMiner"}),
    ],
)
def test_it_learns_from_items_with_labels(loss: str, options: dict[str, Any], labelled: Path) -> None:
    result = finetuner.fit("mlp", labelled, loss=loss, loss_options=options, **FAST)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.after["map"] > result.before["map"] + 0.15


@pytest.mark.parametrize("options", [{}, {"miner": "HDCMiner"}])
def test_it_learns_from_pairs(options: dict[str, Any], pairs: Dataset) -> None:
    result = finetuner.fit("mlp", pairs, loss="NTXentLoss", loss_options=options, **FAST)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.after["mrr"] > result.before["mrr"] + 0.05


def test_pairs_are_refused_by_a_loss_that_needs_labels(pairs: Dataset) -> None:
    with pytest.raises(DataError, match=r"The loss ProxyAnchorLoss learns from labelled data, and .* holds pairs"):
        finetuner.fit("mlp", pairs, loss="ProxyAnchorLoss", loss_options={"num_classes": 2}, **FAST)


def test_a_batch_that_smooth_ap_cannot_take_says_which_it_can(labelled: Path) -> None:
    with pytest.raises(DataError, match="Take batch_size=16, which gives 4 classes of 4 items"):
        finetuner.fit("mlp", labelled, loss="SmoothAPLoss", **FAST)
    result = finetuner.fit("mlp", labelled, loss="SmoothAPLoss", **FAST | {"batch_size": 16})
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_an_option_of_another_miner_is_refused(labelled: Path) -> None:
    options = {"miner": "HDCMiner", "miner_epsilon": 0.1}
    with pytest.raises(OptionError, match='HDCMiner has no option "miner_epsilon"'):
        finetuner.fit("mlp", labelled, loss="SupConLoss", loss_options=options, **FAST)
