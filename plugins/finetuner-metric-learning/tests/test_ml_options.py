"""What does not go together is refused by name, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

import finetuner_core.losses.build
from finetuner_core.plugin import DataError, OptionError
from finetuner_metric_learning.rows import LOSSES


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("NTXentLoss", {"temprature": 1}, 'loss NTXentLoss has no option "temprature". Did you mean "temperature"'),
        ("NTXentLoss", {"temperature": 0}, 'temperature is "0"; it must be at least 0.0001'),
        ("NTXentLoss", {"distance": "cosine"}, 'distance is "cosine"; allowed are CosineSimilarity, DotProduct'),
        ("NTXentLoss", {"distance_p": 1}, "distance_p is given without a distance.\nGive distance as well"),
        (
            "NTXentLoss",
            {"distance": "CosineSimilarity", "distance_normalize_embeddings": False},
            'CosineSimilarity has no option "distance_normalize_embeddings".\nIt has distance_p, distance_power',
        ),
        ("ArcFaceLoss", {"distance": "LpDistance"}, 'loss ArcFaceLoss has no option "distance"'),
        ("NTXentLoss", {"reducer": "MeanReducer", "reducer_low": 1}, 'no option "reducer_low".\nIt has no options'),
        ("NTXentLoss", {"reducer": "ThresholdReducer"}, "cannot be built: At least one of low or high must be"),
        ("TripletMarginLoss", {"reducer": "PerAnchorReducer"}, 'reducer is "PerAnchorReducer"; allowed are AvgNonZ'),
        ("NTXentLoss", {"weight_regularizer": "LpRegularizer"}, 'no option "weight_regularizer"'),
        ("RankedListLoss", {"imbalance": 2}, "RankedListLoss cannot be built: Imbalance must be between 0 and 1"),
        ("HistogramLoss", {"n_bins": 10, "delta": 0.4}, "HistogramLoss cannot be built: delta and n_bins must satisfy"),
        ("TripletMarginLoss", {"triplets_per_anchor": "0"}, 'triplets_per_anchor is "0"; it must be a whole number'),
        ("MarginLoss", {"triplets_per_anchor": "many"}, 'triplets_per_anchor is "many"; it must be a whole number'),
        ("HistogramLoss", {"delta": 0.45}, 'delta is "0.45"; it must be 2 divided by a whole number'),
        ("DynamicSoftMarginLoss", {"min_val": 0}, 'min_val is "0.0"; it must be less than 0'),
        ("DynamicSoftMarginLoss", {"momentum": 1.5}, 'momentum is "1.5"; it must be at most 1'),
        ("NCALoss", {"softmax_scale": -1}, 'softmax_scale is "-1"; it must be at least 0'),
        (
            "NTXentLoss",
            {"miner": "DistanceWeightedMiner", "miner_cutoff": 2},
            'miner_cutoff is "2.0"; it must be less than 2',
        ),
        (
            "NTXentLoss",
            {"miner": "HDCMiner", "miner_filter_percentage": 50},
            'miner_filter_percentage is "50.0"; it must be at most 1',
        ),
        (
            "NTXentLoss",
            {"distance": "DotProductSimilarity", "distance_power": 0.5},
            'distance_power is "0.5"; it must be a whole number for similarities',
        ),
        ("RankedListLoss", {"miner": "HDCMiner"}, 'loss RankedListLoss has no option "miner"'),
    ],
)
def test_an_option_that_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str, build: Any) -> None:
    with pytest.raises(OptionError, match=message):
        build(name, **options)


@pytest.mark.parametrize("name", [row.name for row in LOSSES if row.width])
def test_a_loss_with_vectors_for_classes_asks_for_their_number(name: str) -> None:
    with pytest.raises(OptionError, match=f"loss {name} needs the option num_classes: Number of classes; fit takes"):
        finetuner_core.losses.build.loss_options(name, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((row.name, {}) for row in LOSSES if not row.pairs),
        ("MarginLoss", {"num_classes": 3}),
        ("TripletMarginLoss", {"swap": True}),
    ],
)
def test_pairs_are_refused_by_a_loss_that_cannot_take_them(
    name: str, options: dict[str, Any], build: Any, vectors: Any, labels: Tensor
) -> None:
    loss = build(name, **options)
    with pytest.raises(DataError, match=f"{name}, as its options are, learns .*pairs.\nGive labelled data, or take"):
        loss(vectors(0), labels, ref_emb=vectors(1), ref_labels=labels.clone())


@pytest.mark.parametrize("name", ["ArcFaceLoss", "P2SGradLoss", "MarginLoss"])
def test_a_label_beyond_the_number_of_classes_is_refused(name: str, build: Any, vectors: Any, labels: Tensor) -> None:
    with pytest.raises(DataError, match=f"{name} has num_classes=2, and there is a label number 2.\nSet num_classes"):
        build(name, num_classes=2)(vectors(0), labels)
