"""Checks of a loss that a plugin adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.sources import Part
from finetuner_core.errors import DataError
from finetuner_core.losses.build import build_loss, loss_options
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.testing.backbone import TOLERANCE
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.training.choices import choose_loss

DIM = 12
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])
# Of three candidates for each anchor. Losses that take one only are given the first.
SCORES = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 1.0])[:, None] * torch.tensor([1.0, -1.0, 0.5])
# What is excluded with all others.
LEFT_OUT = 4


def check_scalar(subject: Subject) -> None:
    """The loss of a batch is one finite number, a float."""
    _require_number(subject, f"a batch of {len(LABELS)}", _call(subject, _build(subject), _embeddings(0)))


def check_gradient(subject: Subject) -> None:
    """A finite gradient reaches the embeddings, and each parameter that the loss itself has."""
    loss, embeddings = _build(subject), _embeddings(0).requires_grad_(True)
    value = _call(subject, loss, embeddings)
    _require_number(subject, f"a batch of {len(LABELS)}", value)
    value.backward()  # type: ignore[no-untyped-call]
    _require_gradient(subject, "the embeddings", embeddings)
    for name, parameter in loss.named_parameters():
        _require_gradient(subject, name, parameter)


def check_references(subject: Subject) -> None:
    """With references the loss is a finite number as well, and both sides get a gradient: pairs are trained so.

    A loss whose row does not name pairs is never given any: they are refused by its name.
    """
    if "pairs" not in _forms(subject):
        _require_refused(subject, Dataset((_column("anchor"), _column("positive"))))
        return
    embeddings, references = _embeddings(0).requires_grad_(True), _embeddings(1).requires_grad_(True)
    value = _build(subject)(embeddings, LABELS, ref_emb=references, ref_labels=LABELS.flip(0))
    _require_number(subject, "a batch with references", value)
    value.backward()
    _require_gradient(subject, "the embeddings where there are references", embeddings)
    _require_gradient(subject, "the references", references)


def check_scored(subject: Subject) -> None:
    """With scores the loss is a finite number that follows from them, and both sides get a gradient.

    So it is where all scores are equal, but for the gradient, which may be 0. A loss whose row does not name scored
    data is never given any: they are refused by its name.
    """
    if "scored" not in _forms(subject):
        _require_refused(subject, Dataset((_column("anchor"), _column("candidate")), scores=SCORES[:1, :1].numpy()))
        return
    embeddings, candidates = _embeddings(0).requires_grad_(True), _candidates().requires_grad_(True)
    value = _scored(subject, _build(subject), embeddings, SCORES, candidates)
    _require_number(subject, "a batch with scores", value)
    value.backward()  # type: ignore[no-untyped-call]
    _require_gradient(subject, "the embeddings where there are scores", embeddings)
    _require_gradient(subject, "the candidates", candidates)
    turned = _scored(subject, _build(subject), embeddings, -SCORES, candidates)
    require(
        not torch.equal(value, turned),
        f"{subject.full_name} is {value.item():.6g} for scores and for the same with the other sign.",
        "Compare the similarities of candidates with the scores, float (B, K).",
    )
    equal = _scored(subject, _build(subject), embeddings, torch.ones_like(SCORES), candidates)
    _require_number(subject, "equal scores", equal)
    _require_differentiable(subject, "equal scores", equal, embeddings)


def check_excluded(subject: Subject) -> None:
    """Excluded pairs do not count, where the loss takes `excluded`; and without others it is a zero with a gradient."""
    if not takes_excluded(_build(subject)):
        return
    excluded = torch.zeros(len(LABELS), len(LABELS), dtype=torch.bool)
    excluded[:, LEFT_OUT] = True
    if "pairs" in _forms(subject):
        embeddings = _embeddings(0)
        values = [
            _build(subject)(embeddings, LABELS, ref_emb=references, ref_labels=LABELS.clone(), excluded=excluded)
            for references in (_embeddings(1), _moved(1))
        ]
        _require_left_out(subject, "a reference", *values)
    if "labelled" in _forms(subject):
        excluded[LEFT_OUT] = True
        values = [_build(subject)(each, LABELS, excluded=excluded) for each in (_embeddings(0), _moved(0))]
        _require_left_out(subject, "an item", *values)
        embeddings = _embeddings(0).requires_grad_(True)
        value = _build(subject)(embeddings, LABELS, excluded=torch.ones_like(excluded))
        _require_number(subject, "a batch of which all is excluded", value)
        _require_differentiable(subject, "a batch of which all is excluded", value, embeddings)


def check_no_pairs(subject: Subject) -> None:
    """Where no pair can be formed, of one item alone, the loss is a zero that can be differentiated.

    A loss with parameters of its own may have something to compare one item with, such as a vector for each class, and
    one over scores has the candidates: of these only a finite number and gradient are asked.
    """
    loss, embeddings = _build(subject), _embeddings(0)[:1].requires_grad_(True)
    value = _call(subject, loss, embeddings, slice(1))
    _require_number(subject, "one item", value)
    require(
        bool(value == 0) or any(True for _ in loss.parameters()) or _forms(subject) == ("scored",),
        f"{subject.full_name} of one item is {value.item()}.",
        "Where there is no pair, give embeddings.sum() * 0.",
    )
    _require_differentiable(subject, "one item", value, embeddings)


def check_order(subject: Subject) -> None:
    """The loss is the same for the batch in another order, and for other numbers as labels.

    Of a loss with parameters only the first is asked: it may have learnt which number means what. So it is of one over
    scores, which are no labels.
    """
    loss, embeddings = _build(subject), _embeddings(0)
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    value = _call(subject, loss, embeddings)
    again = {"in another order": _call(subject, loss, embeddings[order], order)}
    if not any(True for _ in loss.parameters()) and _forms(subject) != ("scored",):
        again["with other numbers as labels"] = loss(embeddings, torch.tensor([2, 0, 1])[LABELS])
    for how, other in again.items():
        _require_number(subject, f"a batch {how}", other)
        require(
            bool((value - other).abs() < TOLERANCE * max(1, value.abs().item())),
            f"{subject.full_name} is {value.item():.6g}, and {how} {other.item():.6g}.",
            "Compare labels only with each other, and average over pairs, not by place.",
        )


def _call(subject: Subject, loss: nn.Module, embeddings: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
    """The loss of some rows of the sample, with labels, or with scores where it takes nothing else."""
    if _forms(subject) == ("scored",):
        return _scored(subject, loss, embeddings, SCORES[rows], _candidates()[rows])
    value: Tensor = loss(embeddings, LABELS[rows])
    return value


def _scored(subject: Subject, loss: nn.Module, embeddings: Tensor, scores: Tensor, candidates: Tensor) -> Tensor:
    """The loss over three candidates of each anchor, or over one where it refuses three."""
    refusal: DataError | None = None
    for count in (scores.shape[1], 1):
        try:
            value: Tensor = loss(embeddings, scores[:, :count], ref_emb=candidates[:, :count])
        except DataError as error:
            refusal = error
        else:
            return value
    fail(
        f"{subject.full_name} takes neither three candidates of each anchor nor one: {refusal}",
        "Take scores (B, K) and candidates (B, K, D) for some K.",
    )


def _require_refused(subject: Subject, data: Dataset) -> None:
    try:
        choose_loss(Part("data", data, None), subject.full_name, subject.options)
    except DataError:
        return
    fail(
        f"{subject.full_name} is for {' and '.join(_forms(subject))} data, and {data.form} is not refused.",
        "This is a fault of the core.",
    )


def _require_left_out(subject: Subject, what: str, value: Tensor, moved: Tensor) -> None:
    for each in (value, moved):
        _require_number(subject, "a batch of which some is excluded", each)
    require(
        bool((value - moved).abs() < TOLERANCE * max(1, value.abs().item())),
        f"{subject.full_name} is {value.item():.6g}, and {moved.item():.6g} where {what} lies elsewhere of which all "
        "pairs are excluded.",
        "Leave out pairs where excluded is true, or do not take excluded.",
    )


def _require_differentiable(subject: Subject, what: str, value: Tensor, embeddings: Tensor) -> None:
    require(
        value.requires_grad,
        f"{subject.full_name} of {what} is a number without a gradient, on which training would stop.",
        "Where there is no pair, give embeddings.sum() * 0, which has one.",
    )
    embeddings.grad = None
    value.backward()  # type: ignore[no-untyped-call]
    require(
        embeddings.grad is not None and bool(embeddings.grad.isfinite().all()),
        f"{subject.full_name} of {what} has the gradient {embeddings.grad}.",
        "Where there is no pair, give embeddings.sum() * 0.",
    )


def _require_number(subject: Subject, what: str, value: object) -> None:
    found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else repr(value)
    require(
        isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point() and bool(value.isfinite()),
        f"{subject.full_name} gives {found} for {what}.",
        "Give one finite number, a tensor without dimensions: the mean over pairs, and embeddings.sum() * 0 of none.",
    )


def _require_gradient(subject: Subject, what: str, tensor: Tensor) -> None:
    gradient = tensor.grad
    require(
        gradient is not None and bool(gradient.any()) and bool(gradient.isfinite().all()),
        f"{subject.full_name}: no gradient reaches {what}, or one with NaN or infinite numbers.",
        "Compute with torch, without detach() and .item(), and take no root of zero.",
    )


def _build(subject: Subject) -> nn.Module:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return build_loss(subject.full_name, DIM, loss_options(subject.full_name, subject.options))
    finally:
        torch.random.set_rng_state(state)


def _forms(subject: Subject) -> tuple[str, ...]:
    return catalogue().find_loss(subject.full_name)[1].forms


def _column(name: str) -> Column:
    return Column(name, "text", [name])


def _candidates() -> Tensor:
    return torch.stack([_embeddings(seed) for seed in range(1, 1 + SCORES.shape[1])], dim=1)


def _moved(seed: int) -> Tensor:
    """The embeddings, but for the one that is left out."""
    embeddings = _embeddings(seed)
    embeddings[LEFT_OUT] = _embeddings(seed + 10)[LEFT_OUT]
    return embeddings


def _embeddings(seed: int) -> Tensor:
    return F.normalize(torch.randn(len(LABELS), DIM, generator=torch.Generator().manual_seed(seed)), dim=1)
