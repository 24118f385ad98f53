"""Every loss, with its defaults and with other options, against the library called directly: values and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, reducers, regularizers
from torch import Tensor, nn

from finetuner_metric_learning.rows import LOSSES, Loss

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__ must accept:DeprecationWarning", "ignore:Using a non-tuple sequence:UserWarning"
)

# Arguments of each loss that change what it gives. The option has the name of the argument.
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "AngularLoss": {"alpha": 35},
    "ArcFaceLoss": {"margin": 20, "scale": 30},
    "CircleLoss": {"m": 0.25, "gamma": 100},
    "ContrastiveLoss": {"pos_margin": 0.1, "neg_margin": 0.9},
    "CosFaceLoss": {"margin": 0.2, "scale": 30},
    "DynamicSoftMarginLoss": {"min_val": -2.5, "num_bins": 20, "momentum": 0.5},
    "FastAPLoss": {"num_bins": 7},
    "GeneralizedLiftedStructureLoss": {"pos_margin": 0.1, "neg_margin": 0.9},
    "HistogramLoss": {"n_bins": 40},
    "IntraPairVarianceLoss": {"pos_eps": 0.1, "neg_eps": 0.2},
    "LargeMarginSoftmaxLoss": {"margin": 3, "scale": 2},
    "LiftedStructureLoss": {"pos_margin": 0.1, "neg_margin": 0.9},
    "MarginLoss": {"margin": 0.3, "beta": 0.9, "nu": 0.1, "learn_beta": True},
    "MultiSimilarityLoss": {"alpha": 3, "beta": 40, "base": 0.4},
    "NCALoss": {"softmax_scale": 3},
    "NormalizedSoftmaxLoss": {"temperature": 0.1},
    "NPairsLoss": {},
    "NTXentLoss": {"temperature": 0.2},
    "P2SGradLoss": {},
    "PNPLoss": {"variant": "Ib", "b": 3, "anneal": 0.1},
    "ProxyAnchorLoss": {"margin": 0.2, "alpha": 16},
    "ProxyNCALoss": {"softmax_scale": 3},
    "RankedListLoss": {"margin": 0.6, "Tn": 5, "imbalance": 0.4, "alpha": 1.4, "Tp": 1},
    "SignalToNoiseRatioContrastiveLoss": {"pos_margin": 0.1, "neg_margin": 0.9},
    "SmoothAPLoss": {"temperature": 0.1},
    "SoftTripleLoss": {"centers_per_class": 4, "la": 10, "gamma": 0.2, "margin": 0.1},
    "SphereFaceLoss": {"margin": 3, "scale": 2},
    "SubCenterArcFaceLoss": {"margin": 20, "scale": 30, "sub_centers": 2},
    "SupConLoss": {"temperature": 0.2},
    "ThresholdConsistentMarginLoss": {"lambda_plus": 2, "lambda_minus": 0.5, "margin_plus": 0.8, "margin_minus": 0.1},
    "TripletMarginLoss": {"margin": 0.3, "smooth_loss": True},
    "TupletMarginLoss": {"margin": 10, "scale": 30},
}

CASES = [
    *((row, {}) for row in LOSSES),
    *((row, CHANGED[row.name]) for row in LOSSES if CHANGED[row.name]),
]
MORE: list[tuple[str, dict[str, Any]]] = [
    ("HistogramLoss", {"delta": 0.1}),
    ("MarginLoss", {"num_classes": 3, "learn_beta": True, "nu": 0.1}),
    ("MarginLoss", {"triplets_per_anchor": 2}),
    ("PNPLoss", {"variant": "Dq", "alpha": 2}),
    ("PNPLoss", {"variant": "Ds"}),
    ("PNPLoss", {"variant": "Iu"}),
    ("TripletMarginLoss", {"swap": True}),
    ("TripletMarginLoss", {"triplets_per_anchor": 5}),
]

PARTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ContrastiveLoss", {"distance": "CosineSimilarity"}, {"distance": distances.CosineSimilarity()}),
    (
        "TripletMarginLoss",
        {"distance": "LpDistance", "distance_p": 1, "distance_power": 2},
        {"distance": distances.LpDistance(p=1, power=2)},
    ),
    (
        "ProxyAnchorLoss",
        {"distance": "DotProductSimilarity", "distance_normalize_embeddings": False},
        {"distance": distances.DotProductSimilarity(normalize_embeddings=False)},
    ),
    ("NTXentLoss", {"distance": "SNRDistance"}, {"distance": distances.SNRDistance()}),
    ("TripletMarginLoss", {"reducer": "MeanReducer"}, {"reducer": reducers.MeanReducer()}),
    ("NTXentLoss", {"reducer": "PerAnchorReducer"}, {"reducer": reducers.PerAnchorReducer()}),
    ("ArcFaceLoss", {"reducer": "SumReducer"}, {"reducer": reducers.SumReducer()}),
    ("TupletMarginLoss", {"reducer": "AvgNonZeroReducer"}, {"reducer": reducers.AvgNonZeroReducer()}),
    (
        "ContrastiveLoss",
        {"reducer": "ThresholdReducer", "reducer_low": 0.1, "reducer_high": 0.9},
        {"reducer": reducers.ThresholdReducer(low=0.1, high=0.9)},
    ),
    (
        "NTXentLoss",
        {"embedding_regularizer": "ZeroMeanRegularizer", "embedding_reg_weight": 0.5},
        {"embedding_regularizer": regularizers.ZeroMeanRegularizer(), "embedding_reg_weight": 0.5},
    ),
    (
        "MultiSimilarityLoss",
        {"embedding_regularizer": "LpRegularizer", "embedding_regularizer_p": 1},
        {"embedding_regularizer": regularizers.LpRegularizer(p=1)},
    ),
    *(
        (
            "CosFaceLoss",
            {"weight_regularizer": name, "weight_reg_weight": 0.1},
            {"weight_regularizer": getattr(regularizers, name)(), "weight_reg_weight": 0.1},
        )
        for name in ("CenterInvariantRegularizer", "LpRegularizer", "RegularFaceRegularizer", "ZeroMeanRegularizer")
    ),
]


def same(ours: nn.Module, theirs: Any, vectors: Any, labels: Tensor, *, pairs: bool) -> list[float]:
    """Compares values and gradients over three batches, and gives the values."""
    values = []
    for seed in range(3):
        found = []
        for loss in (ours, theirs):
            embeddings, references = vectors(seed), vectors(seed + 100)
            given = {"ref_emb": references, "ref_labels": labels.clone()} if pairs else {}
            loss.zero_grad()
            torch.manual_seed(seed)
            value = loss(embeddings, labels, **given)
            assert value.shape == ()
            value.backward()
            inputs = (embeddings, references) if pairs else (embeddings,)
            found.append([value.detach(), *(tensor.grad for tensor in (*inputs, *loss.parameters()))])
        torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
        values.append(found[0][0].item())
    assert any(values)
    return values


def fresh(loss: Any, name: str) -> Any:
    """The library's loss, for one whose backward fails in its second step."""
    if name == "DynamicSoftMarginLoss":
        loss.register_forward_pre_hook(lambda module, _: setattr(module, "hist_", module.hist_.detach()))
    return loss


@pytest.mark.parametrize(("row", "changed"), CASES, ids=lambda value: getattr(value, "name", None))
def test_a_loss_is_the_librarys(
    row: Loss, changed: dict[str, Any], build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    ours, theirs = build(row.name, **changed), fresh(library(row.name, **changed), row.name)
    values = same(ours, theirs, vectors, labels, pairs=False)
    if changed:
        assert values != same(build(row.name), fresh(library(row.name), row.name), vectors, labels, pairs=False)


@pytest.mark.parametrize(
    ("row", "changed"), [case for case in CASES if case[0].pairs], ids=lambda value: getattr(value, "name", None)
)
def test_a_loss_between_embeddings_and_references_is_the_librarys(
    row: Loss, changed: dict[str, Any], build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    ours, theirs = build(row.name, **changed), fresh(library(row.name, **changed), row.name)
    assert same(ours, theirs, vectors, labels, pairs=True) != same(ours, theirs, vectors, labels, pairs=False)


@pytest.mark.parametrize(("name", "changed"), MORE)
def test_other_options_are_the_librarys(
    name: str, changed: dict[str, Any], build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    typed = {key: str(value) for key, value in changed.items()}  # as on the command line
    ours = same(build(name, **typed), library(name, **changed), vectors, labels, pairs=False)
    assert ours != same(build(name), library(name), vectors, labels, pairs=False)


@pytest.mark.parametrize(("name", "options", "arguments"), PARTS)
def test_distances_reducers_and_regularizers_are_the_librarys(
    name: str,
    options: dict[str, Any],
    arguments: dict[str, Any],
    build: Any,
    library: Any,
    vectors: Any,
    labels: Tensor,
) -> None:
    ours = same(build(name, **options), library(name, **arguments), vectors, labels, pairs=False)
    assert ours != same(build(name), library(name), vectors, labels, pairs=False)


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
def test_every_distance_and_reducer_that_a_row_offers_is_the_librarys(
    row: Loss, build: Any, library: Any, vectors: Any, labels: Tensor
) -> None:
    for name in row.distances:
        theirs = library(row.name, distance=getattr(distances, name)())
        same(build(row.name, distance=name), theirs, vectors, labels, pairs=False)
    for name in row.reducers:
        low = {"low": 0.05} if name == "ThresholdReducer" else {}
        theirs = library(row.name, reducer=getattr(reducers, name)(**low))
        ours = build(row.name, reducer=name, **{f"reducer_{key}": value for key, value in low.items()})
        same(ours, theirs, vectors, labels, pairs=False)


def test_the_parameters_are_the_librarys(build: Any, library: Any) -> None:
    for row in LOSSES:
        ours, theirs = build(row.name).loss.state_dict(), library(row.name).state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert bool(ours) == bool(row.width)


@pytest.mark.parametrize("pairs", [False, True])
def test_ntxent_loss_is_the_cores_infonce(pairs: bool, build: Any, vectors: Any, labels: Tensor) -> None:
    ours, cores = build("NTXentLoss", temperature=0.2), build("infonce", temperature=0.2)
    references = {"ref_emb": vectors(1), "ref_labels": labels.clone()} if pairs else {}
    torch.testing.assert_close(ours(vectors(0), labels, **references), cores(vectors(0), labels, **references))
