"""The numbers of labelled data are those of pytorch-metric-learning's AccuracyCalculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytorch_metric_learning")
pytest.importorskip("hypothesis")

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.evaluation.evaluate import _evaluate_labelled

THEIRS = {
    "recall@1": "precision_at_1",
    "mrr": "mean_reciprocal_rank",
    "map": "mean_average_precision",
    "r_precision": "r_precision",
    "map@r": "mean_average_precision_at_r",
}
DATA = Path(__file__).parents[3] / "shared" / "data"


def assert_agree(vectors: np.ndarray, labels: list[str], within: float = 1e-6) -> None:
    data = Dataset((Column("vectors", "vector", vectors),), labels)
    found = _evaluate_labelled(lambda *_: vectors, data, tuple(THEIRS))(None)
    calculator = AccuracyCalculator(
        include=tuple(THEIRS.values()),
        k=len(vectors) - 1,
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )
    expected = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(data.classes))
    for own, theirs in THEIRS.items():
        assert found[own] == pytest.approx(expected[theirs], abs=within), own


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 20))
def test_random_cases(seed: int, items: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 8)).astype(np.float32)
    labels = [str(label) for label in rng.integers(0, classes, items)]
    labels[1] = labels[0]  # so that one at least is not alone
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # It brings vectors to length 1 again, which swaps neighbours that differ by less than float32 tells.
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    assume(np.diff(np.sort(cosines, axis=1), axis=1).min() > 2e-6)
    assert_agree(vectors, labels)


def test_real_vectors() -> None:
    file = DATA / "vectors_clothing_mnv2" / "vectors.npz"
    if not file.is_file():
        pytest.skip("the data is not here")
    with np.load(file) as archive:
        vectors, labels = archive["X"].astype(np.float32), archive["y"].astype(str)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Two neighbours of one photo are equally near but for rounding, and it swaps them: 1/3 - 1/4 of 1,805.
    assert_agree(vectors, labels.tolist(), within=1e-4)
