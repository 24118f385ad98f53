"""Every miner, before losses of each kind, against the library called directly: pairs, values and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, miners
from torch import Tensor

from finetuner_core.plugin import OptionError
from finetuner_metric_learning.parts import MINER

# Arguments of each miner that change which pairs it chooses.
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "AngularMiner": {"angle": 35.0},
    "BatchEasyHardMiner": {"pos_strategy": "hard", "neg_strategy": "easy"},
    "BatchHardMiner": {"allowed_neg_range": (0.9, 2.0)},
    "DistanceWeightedMiner": {"cutoff": 1.0, "nonzero_loss_cutoff": 1.2},
    "HDCMiner": {"filter_percentage": 0.2},
    "MultiSimilarityMiner": {"epsilon": -0.3},
    "PairMarginMiner": {"pos_margin": 1.2, "neg_margin": 1.5},
    "TripletMarginMiner": {"margin": 0.4, "type_of_triplets": "semihard"},
    "UniformHistogramMiner": {"num_bins": 3, "pos_per_bin": 2, "neg_per_bin": 4},
}
WITH_DISTANCE = ["BatchEasyHardMiner", "BatchHardMiner", "HDCMiner", "MultiSimilarityMiner", "PairMarginMiner"]
CASES = [(name, changed) for name in MINER.classes for changed in ({}, CHANGED[name])]


def as_options(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    written = {
        f"miner_{key}": ",".join(map(str, value)) if isinstance(value, tuple) else value
        for key, value in arguments.items()
    }
    return {"miner": name, **written}


def mined(miner: Any, embeddings: Tensor, labels: Tensor, seed: int, *references: Tensor) -> list[list[int]]:
    torch.manual_seed(seed)
    return [index.tolist() for index in miner(embeddings, labels, *references)]


@pytest.mark.parametrize(("name", "changed"), CASES)
def test_a_miner_chooses_what_the_librarys_does(
    name: str, changed: dict[str, Any], build: Any, vectors: Any, labels: Tensor
) -> None:
    ours = build("TripletMarginLoss", **as_options(name, changed)).miner
    theirs, default = getattr(miners, name)(**changed), getattr(miners, name)()
    chosen, otherwise = [], []
    for seed in range(3):
        embeddings, references = vectors(seed), vectors(seed + 100)
        for pair in ((), (references, labels.clone())):
            chosen.append(mined(ours, embeddings, labels, seed, *pair))
            assert chosen[-1] == mined(theirs, embeddings, labels, seed, *pair)
            otherwise.append(mined(default, embeddings, labels, seed, *pair))
    assert any(any(indices) for indices in chosen)
    assert (chosen != otherwise) == bool(changed)


@pytest.mark.parametrize(
    ("loss", "pairs"),
    [
        *((loss, pairs) for loss in ("TripletMarginLoss", "ContrastiveLoss", "NCALoss") for pairs in (False, True)),
        ("ArcFaceLoss", False),
        ("SmoothAPLoss", False),
    ],
)
@pytest.mark.parametrize("name", MINER.classes)
def test_what_a_miner_chooses_is_what_the_loss_counts(
    name: str, loss: str, pairs: bool, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    ours, theirs = build(loss, miner=name), library(loss)
    for seed in range(2):
        embeddings, references = vectors(seed), vectors(seed + 100)
        others, other_labels = (references, labels.clone()) if pairs else (None, None)
        torch.manual_seed(seed)
        value = ours(embeddings, labels, others, other_labels)
        value.backward()
        found, embeddings.grad = embeddings.grad, None
        torch.manual_seed(seed)
        indices = getattr(miners, name)()(embeddings, labels, others, other_labels)
        expected = theirs(embeddings, labels, indices, others, other_labels)
        expected.backward()
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found, embeddings.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance", ["CosineSimilarity", "DotProductSimilarity", "LpDistance", "SNRDistance"])
@pytest.mark.parametrize("name", WITH_DISTANCE)
def test_a_miner_compares_by_the_distance_that_is_given(
    name: str, distance: str, build: Any, vectors: Any, labels: Tensor
) -> None:
    ours = build("ContrastiveLoss", miner=name, miner_distance=distance).miner
    theirs = getattr(miners, name)(distance=getattr(distances, distance)())
    assert mined(ours, vectors(0), labels, 0) == mined(theirs, vectors(0), labels, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miner": "HardMiner"}, 'miner is "HardMiner"; allowed are AngularMiner, .*UniformHistogramMiner'),
        (
            {"miner": "MultiSimilarityMiner", "miner_margin": 0.1},
            'MultiSimilarityMiner has no option "miner_margin".\nIt has miner_epsilon, miner_distance',
        ),
        ({"miner_margin": 0.1}, "miner_margin is given without a miner.\nGive miner as well"),
        (
            {"miner": "TripletMarginMiner", "miner_type_of_triplets": "hardest"},
            'miner_type_of_triplets is "hardest"; allowed are all, hard, semihard, easy',
        ),
        (
            {"miner": "BatchEasyHardMiner", "miner_pos_strategy": "semihard"},
            'BatchEasyHardMiner cannot be built: pos_strategy and neg_strategy cannot both be "semihard"',
        ),
        (
            {"miner": "BatchHardMiner", "miner_allowed_pos_range": "0.1"},
            'miner_allowed_pos_range is "0.1"; it takes two numbers, such as 0.1,0.9',
        ),
        ({"miner": "UniformHistogramMiner", "miner_num_bins": 0}, 'miner_num_bins is "0"; it must be at least 1'),
    ],
)
def test_what_a_miner_does_not_take_is_refused_by_name(options: dict[str, Any], message: str, build: Any) -> None:
    with pytest.raises(OptionError, match=message):
        build("TripletMarginLoss", **options)
