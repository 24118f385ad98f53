"""Checks of a loss that a plugin adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError
from finetuner_core.losses.build import build_loss, loss_options
from finetuner_core.testing.backbone import TOLERANCE
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.training.choices import choose_loss

DIM = 12
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])


def check_scalar(subject: Subject) -> None:
    """The loss of a batch is one finite number, a float."""
    _require_number(subject, f"a batch of {len(LABELS)}", _build(subject)(_embeddings(0), LABELS))


def check_gradient(subject: Subject) -> None:
    """A finite gradient reaches the embeddings, and each parameter that the loss itself has."""
    loss, embeddings = _build(subject), _embeddings(0).requires_grad_(True)
    value = loss(embeddings, LABELS)
    _require_number(subject, f"a batch of {len(LABELS)}", value)
    value.backward()
    _require_gradient(subject, "the embeddings", embeddings)
    for name, parameter in loss.named_parameters():
        _require_gradient(subject, name, parameter)


def check_references(subject: Subject) -> None:
    """With references the loss is a finite number as well, and both sides get a gradient: pairs are trained so.

    A loss whose row says that it learns from labelled data alone is never given any: pairs are refused by its name.
    """
    if "pairs" not in catalogue().find_loss(subject.full_name)[1].forms:
        pairs = Dataset((Column("anchor", "text", ["a"]), Column("positive", "text", ["b"])))
        try:
            choose_loss(pairs, subject.full_name, subject.options)
        except DataError:
            return
        fail(f"{subject.full_name} is for labelled data, and pairs are not refused.", "This is a fault of the core.")
    embeddings, references = _embeddings(0).requires_grad_(True), _embeddings(1).requires_grad_(True)
    value = _build(subject)(embeddings, LABELS, ref_emb=references, ref_labels=LABELS.flip(0))
    _require_number(subject, "a batch with references", value)
    value.backward()
    _require_gradient(subject, "the embeddings where there are references", embeddings)
    _require_gradient(subject, "the references", references)


def check_no_pairs(subject: Subject) -> None:
    """Where no pair can be formed, of one item alone, the loss is a zero that can be differentiated.

    A loss with parameters of its own may have something to compare one item with, such as a vector for each class: of
    it only a finite number and gradient are asked.
    """
    loss, embeddings = _build(subject), _embeddings(0)[:1].requires_grad_(True)
    value = loss(embeddings, LABELS[:1])
    _require_number(subject, "one item", value)
    require(
        bool(value == 0) or any(True for _ in loss.parameters()),
        f"{subject.full_name} of one item is {value.item()}.",
        "Where there is no pair, give embeddings.sum() * 0.",
    )
    require(
        value.requires_grad,
        f"{subject.full_name} of one item is a number without a gradient, on which training would stop.",
        "Where there is no pair, give embeddings.sum() * 0, which has one.",
    )
    value.backward()
    require(
        embeddings.grad is not None and bool(embeddings.grad.isfinite().all()),
        f"{subject.full_name} of one item has the gradient {embeddings.grad}.",
        "Where there is no pair, give embeddings.sum() * 0.",
    )


def check_order(subject: Subject) -> None:
    """The loss is the same for the batch in another order, and for other numbers as labels.

    Of a loss with parameters only the first is asked: it may have learnt which number means what.
    """
    loss, embeddings = _build(subject), _embeddings(0)
    value, order = loss(embeddings, LABELS), torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    again = {"in another order": loss(embeddings[order], LABELS[order])}
    if not any(True for _ in loss.parameters()):
        again["with other numbers as labels"] = loss(embeddings, torch.tensor([2, 0, 1])[LABELS])
    for how, other in again.items():
        _require_number(subject, f"a batch {how}", other)
        require(
            bool((value - other).abs() < TOLERANCE * max(1, value.abs().item())),
            f"{subject.full_name} is {value.item():.6g}, and {how} {other.item():.6g}.",
            "Compare labels only with each other, and average over pairs, not by place.",
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


def _embeddings(seed: int) -> Tensor:
    return F.normalize(torch.randn(len(LABELS), DIM, generator=torch.Generator().manual_seed(seed)), dim=1)
