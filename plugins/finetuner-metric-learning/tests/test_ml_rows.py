"""The rows against the library's own signatures: nothing is missing, nothing is made up, and nothing is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor

from finetuner_core import builtin
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import UnknownNameError
from finetuner_core.plugin import Option
from finetuner_metric_learning import plugin
from finetuner_metric_learning.parts import DISTANCE, EMBEDDING_REGULARIZER, KINDS, MINER, REDUCER, WEIGHT_REGULARIZER
from finetuner_metric_learning.rows import LEFT_OUT, LOSSES, Loss

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

ROWS = pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
MODULES: dict[str, Any] = {"distance": distances, "reducer": reducers, "miner": miners}

# Arguments of the library that are no options.
NO_OPTION = {
    "collect_stats": "keeps numbers for its own loggers",
    "weight_init_func": "a function",
    "aggregation_func": "a function",
    "embedding_size": "the width of the model",
    "descriptors_dim": "the width of the model",
}
# What a class hands to its base itself, so that nobody else can.
FIXED = {
    "mat_based_loss": "GenericPairLoss",
    "pos_strategy": "BatchHardMiner",
    "neg_strategy": "BatchHardMiner",
    "is_inverted": "BaseDistance",
}


def classes(module: Any) -> Iterator[str]:
    return (name for name, member in vars(module).items() if inspect.isclass(member))


def arguments(kind: Any) -> dict[str, Any]:
    """Each argument that a class of the library takes, its bases' too, with its default."""
    found: dict[str, Any] = {}
    for base in kind.__mro__[: kind.__mro__.index(torch.nn.Module)]:
        if "__init__" in vars(base):
            for parameter in list(inspect.signature(base.__init__).parameters.values())[1:]:
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(parameter.name, parameter.default)
    for name in NO_OPTION:
        found.pop(name, None)
    for name, owner in FIXED.items():
        if any(base.__name__ == owner for base in kind.__mro__):
            found.pop(name, None)
    return found


def agrees(option: Option, default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return option.required and option.default is None
    same_type = option.type != "int" or type(default) is int or default is None
    return bool(option.default == default) and not option.required and same_type


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from finetuner_metric_learning import plugin; assert plugin.list_losses()\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'pytorch_metric_learning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_loss_and_miner_of_the_library_is_offered_or_left_out_with_its_reason() -> None:
    offered = [row.name for row in LOSSES] + list(MINER.classes)
    assert sorted([*offered, *LEFT_OUT]) == sorted([*classes(losses), *classes(miners)])
    assert all(LEFT_OUT.values())


def test_no_name_is_one_of_the_cores() -> None:
    assert not {row.name for row in LOSSES} & {row.name for row in builtin.list_losses()}


@ROWS
def test_the_options_of_a_loss_are_the_librarys_arguments_with_their_defaults(row: Loss) -> None:
    taken = arguments(getattr(losses, row.name))
    own = {
        option.name: option
        for option in row.info.options
        if not any(option.name.startswith(kind.name) for kind in KINDS)
    }
    parts = {kind.name for kind in KINDS} & set(taken)
    assert set(own) == set(taken) - parts
    for name, option in own.items():
        # delta and n_bins, alpha: None has the library choose.
        assert agrees(option, taken[name]), (name, option, taken[name])
    declared = {option.name for option in row.info.options}
    assert {"embedding_regularizer"} <= declared
    assert ("weight_regularizer" in declared) == ("weight_regularizer" in taken)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in kind.classes], ids=lambda value: str(value)[:30]
)
def test_the_options_of_a_part_are_the_librarys_arguments_with_their_defaults(kind: Any, name: str) -> None:
    taken = arguments(getattr(MODULES.get(kind.name, regularizers), name))
    if kind is REDUCER:
        taken.pop("reducer", None)  # of PerAnchorReducer: one that reduces what it has aggregated
        taken = {} if name == "AvgNonZeroReducer" else taken  # which is ThresholdReducer(low=0)
    if kind in (EMBEDDING_REGULARIZER, WEIGHT_REGULARIZER) or name in ("AngularMiner", "DistanceWeightedMiner"):
        taken = {key: default for key, default in taken.items() if key not in ("distance", "reducer")}
    if name == "CosineSimilarity":
        taken.pop("normalize_embeddings")  # which it fixes
    declared = {option.name: option for option in kind.classes[name]}
    assert set(declared) == set(taken)
    assert all(agrees(option, taken[key]) for key, option in declared.items())


def test_every_part_of_the_library_is_offered_but_what_needs_more_than_options() -> None:
    assert set(classes(distances)) - set(DISTANCE.classes) == {"BaseDistance", "BatchedDistance"}
    assert set(classes(reducers)) - set(REDUCER.classes) == {
        "BaseReducer",
        "ClassWeightedReducer",  # takes a tensor
        "DivisorReducer",  # the default of the losses that have a divisor
        "DoNothingReducer",  # gives no scalar
        "MultipleReducers",  # the library makes it where it is needed
    }
    assert set(classes(regularizers)) - set(WEIGHT_REGULARIZER.classes) == {
        "BaseRegularizer",
        "SparseCentersRegularizer",  # takes the counts of the loss that it is for
    }


def _value(library: Any, row: Loss, vectors: Tensor, labels: Tensor, **parts: Any) -> float | None:
    try:
        return float(library(row.name, **parts)(vectors, labels).detach())
    except (AssertionError, RuntimeError, NotImplementedError, ValueError):
        return None


@ROWS
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
def test_a_row_has_the_distances_and_reducers_that_the_library_computes_it_with(
    row: Loss, library: Any, vectors: Any, labels: Tensor
) -> None:
    embeddings = vectors(0).detach()

    def value(**parts: Any) -> float | None:
        return _value(library, row, embeddings, labels, **parts)

    works = [name for name in DISTANCE.classes if value(distance=getattr(distances, name)()) is not None]
    if row.name == "P2SGradLoss":
        assert row.distances == ()  # The library takes it, and makes no use of it.
    else:
        assert list(row.distances) == (works if len(works) > 1 else [])
    made = {name: getattr(reducers, name)(**({"low": 0.1} if "Threshold" in name else {})) for name in REDUCER.classes}
    values = {name: value(reducer=reducer) for name, reducer in made.items()}
    counts = values["SumReducer"] != values["MeanReducer"]
    assert list(row.reducers) == ([name for name, value in values.items() if value is not None] if counts else [])


@ROWS
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
def test_a_row_says_whether_the_library_takes_a_miner_and_references(
    row: Loss, library: Any, vectors: Any, labels: Tensor
) -> None:
    loss = library(row.name)
    embeddings, references = vectors(0), vectors(1)
    indices = miners.BatchHardMiner()(embeddings, labels)
    if row.mines:
        loss(embeddings, labels, indices)
    else:
        with pytest.raises(ValueError, match="indices_tuple is not supported"):
            loss(embeddings, labels, indices)
    if row.pairs:
        loss(embeddings, labels, None, references, labels.clone()).backward()
        assert references.grad is not None
        assert bool(references.grad.any())
    elif row.name == "ThresholdConsistentMarginLoss":
        # The library takes references, and looks for positives among the embeddings all the same.
        with_them = loss(embeddings, labels, None, references, labels.clone())
        assert torch.equal(with_them, loss(embeddings, labels, None, -references, labels.clone()))
    else:
        with pytest.raises(ValueError, match="ref_emb is not supported"):
            loss(embeddings, labels, None, references, labels.clone())


def test_the_plugin_lists_the_rows() -> None:
    assert [info.name for info in plugin.list_losses()] == [row.name for row in LOSSES]
    assert len({row.name for row in LOSSES}) == len(LOSSES)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("supcon", "SupConLoss"),
        ("multi-similarity", "MultiSimilarityLoss"),
        ("arcface", "ArcFaceLoss"),
        ("proxy-anchor", "ProxyAnchorLoss"),
        ("nt-xent", "NTXentLoss"),
    ],
)
def test_a_loss_by_the_name_of_its_paper_is_near_the_one_of_the_library(typed: str, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f'There is no loss "{typed}". Did you mean .*"{name}"'):
        catalogue().find_loss(typed)
    assert catalogue().find_loss(name)[0].namespace == "metric-learning"
