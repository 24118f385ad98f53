"""Checks of how a backbone is fed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from finetuner_core.interfaces import Batch, Preprocess, TextPreprocess
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.testing.backbone import embed, items, model_of, row_of, sides_of, vector_width
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.testing.samples import ODD_TEXTS, odd_items_of
from finetuner_core.values import Modality, Side


def check_modalities(subject: Subject) -> None:
    """There is an encoder and a preprocess for each modality of the row's task."""
    model, row = model_of(subject), row_of(subject)
    require(
        model.modalities == row.modalities,
        f"{subject.full_name} takes {', '.join(model.modalities)}, and its task {row.task} is about "
        f"{', '.join(row.modalities)}.",
        "Correct the row's task.",
    )
    for modality in row.modalities:
        try:
            model.encoder(modality)
            preprocess = model.preprocess(modality)
        except KeyError:
            fail(
                f"{subject.full_name} has no extractor or no preprocess for {modality}.",
                "Give one from strip_head, and one in LoadedBackbone.preprocess.",
            )
        missing = [name for name in ("prepare", "length", "collate") if not callable(getattr(preprocess, name, None))]
        require(
            not missing,
            f"The preprocess of {subject.full_name} for {modality} has no {', '.join(missing)}.",
            "Implement finetuner_core.interfaces.Preprocess.",
        )


def check_preprocess(subject: Subject) -> None:
    """Items are prepared one by one and in order, and collated into tensors whose first dimension is the batch.

    The core prepares ahead, in other processes and in parts, and makes batches of what it likes. Pictures are prepared
    as the core changes them in training: uint8 (3, H, W).
    """
    model = model_of(subject)
    for modality, side, preprocess in _preprocesses(model):
        some, about = items(subject, modality), f"The preprocess of {subject.full_name} for {side or modality}"
        prepared = preprocess.prepare(some)
        require(
            isinstance(prepared, list) and len(prepared) == len(some),
            f"{about} makes {type(prepared).__name__} of {len(prepared)} of a list of {len(some)}.",
            "Let prepare give a list with one entry for each item.",
        )
        for position, (together, item) in enumerate(zip(prepared, some, strict=True)):
            alone = preprocess.prepare([item])[0]
            require(
                _equal(preprocess.collate([together]), preprocess.collate([alone])),
                f"{about} makes something else of item {position} alone than beside the others.",
                "Let prepare make of each item what that item says; what needs the batch belongs into collate.",
            )
            length = preprocess.length(together)
            require(
                type(length) is int and length >= 1,
                f"{about} says that item {position} has length {length!r}.",
                "Let length give how many tokens the network sees, a whole number of at least 1.",
            )
            if modality == "image":
                _check_pixels(about, together)
        batch = preprocess.collate(prepared)
        require(
            isinstance(batch, Mapping) and bool(batch) and all(isinstance(it, Tensor) for it in batch.values()),
            f"{about} collates into {type(batch).__name__} and not into tensors by name.",
            "Let collate give a mapping of names to tensors.",
        )
        wrong = {name: tuple(it.shape) for name, it in batch.items() if it.shape[:1] != (len(some),)}
        require(
            not wrong,
            f"{about} collates {len(some)} items into tensors of the shapes {wrong}.",
            "Make the batch the first dimension of each tensor.",
        )


def check_pickle(subject: Subject) -> None:
    """The preprocess and what it prepares can be pickled, and the copy prepares the same.

    Processes beside the one that trains may prepare, and are sent both. Nothing is read here but what was written here.
    """
    model = model_of(subject)
    for modality, side, preprocess in _preprocesses(model):
        some, what = items(subject, modality), f"the preprocess of {subject.full_name} for {side or modality}"
        try:
            copy = pickle.loads(pickle.dumps(preprocess))
            what = f"what {what} prepares"
            prepared = pickle.loads(pickle.dumps(copy.prepare(some)))
        except Exception as error:  # Whatever a class or a library raises when it is asked to be pickled.
            fail(
                f"Pickling {what} fails: {type(error).__name__}: {error}",
                "Hold no lambda, inner function, open file or lock in it; a class at the top of a module will do.",
            )
        require(
            _equal(copy.collate(prepared), preprocess.collate(preprocess.prepare(some))),
            f"A pickled copy of the preprocess of {subject.full_name} for {side or modality} prepares something else.",
            "Let __getstate__ keep all that prepare and collate use.",
        )


def check_inputs(subject: Subject) -> None:
    """What people have gives a finite vector: an empty text, a very long one, pictures of one pixel and of any mode.

    A text preprocess that cuts says so of the long text, and of the empty one not.
    """
    model = model_of(subject)
    for modality, side, preprocess in _preprocesses(model):
        for what, item in odd_items_of(modality, vector_width(subject, modality)).items():
            try:
                vectors = embed(model, modality, [item], side)
            except Exception as error:  # Whatever the network or its library makes of it.
                fail(
                    f"{subject.full_name} cannot take {what}: {type(error).__name__}: {error}",
                    "Prepare an empty text as one token at least, cut a long one, and read pictures with "
                    "finetuner_core.data.images.read_image.",
                )
            require(
                bool(vectors.isfinite().all()),
                f"{subject.full_name} makes a vector with NaN or infinite numbers of {what}.",
                "Prepare an empty text as one token at least, and divide by no count, length or deviation of zero.",
            )
        if modality == "text":
            _check_cut(subject, preprocess)


def _check_cut(subject: Subject, preprocess: Preprocess) -> None:
    if not isinstance(preprocess, TextPreprocess):  # It cuts no text.
        return
    empty, *_, long = preprocess.prepare(list(ODD_TEXTS.values()))
    length, cut = preprocess.length(long), (preprocess.is_cut(empty), preprocess.is_cut(long))
    require(
        length <= preprocess.max_length and not cut[0] and (cut[1] or length < preprocess.max_length),
        f"{subject.full_name} reads {length} tokens of a long text, its max_length is {preprocess.max_length}, and "
        f"is_cut says {cut[0]} of an empty text and {cut[1]} of the long one.",
        "Cut at max_length, special tokens included, and let is_cut say of which texts something was left out.",
    )


def _check_pixels(about: str, prepared: object) -> None:
    is_picture = isinstance(prepared, Tensor) and prepared.dtype == torch.uint8 and prepared.ndim == 3
    found = f"{prepared.dtype} {tuple(prepared.shape)}" if isinstance(prepared, Tensor) else type(prepared).__name__
    require(
        isinstance(prepared, Tensor) and is_picture and prepared.shape[0] == 3,
        f"{about} prepares {found}.",
        "Prepare uint8 (3, H, W), as finetuner_core.data.pixels.PixelPreprocess does.",
    )


def _preprocesses(model: EmbeddingModel) -> Iterator[tuple[Modality, Side | None, Preprocess]]:
    """Each way in which items are fed."""
    for modality in model.modalities:
        for side in sides_of(model, modality):
            yield modality, side, model.preprocess(modality, side)


def _equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
