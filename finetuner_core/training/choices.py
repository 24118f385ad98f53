"""What is decided where a person left it open."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.images import are_grey
from finetuner_core.errors import DataError
from finetuner_core.losses.build import loss_options
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.lora import has_matrices
from finetuner_core.training.loop import Plan
from finetuner_core.training.precision import choose_precision
from finetuner_core.training.settings import Settings
from finetuner_core.values import OptionValue

# Items of a class in a batch, where there are classes enough to choose from.
ITEMS_PER_CLASS = 4

# CLIP (https://arxiv.org/abs/2103.00020) starts at this temperature.
_CLIP = {"symmetric": True, "learnable": True, "temperature": 0.07}

# About how many images, of all labels, are looked at to tell whether there is any colour in them.
_COLOUR_SAMPLE = 100


def choose_loss(
    data: Dataset, name: str | None, options: Mapping[str, object] | None, *, two_towers: bool = False
) -> tuple[str, dict[str, OptionValue]]:
    """The loss's name, and a value for each of its options.

    A loss that keeps something for each class is told how many there are in labelled data.

    Raises:
        UnknownNameError: if nobody lists the loss.
        OptionError: if an option is unknown or not allowed.
        DataError: if the loss does not learn from data of this form.
    """
    name = name or "infonce"
    defaults: dict[str, object] = {}
    if name in ("infonce", "finetuner/infonce") and (two_towers or len({c.modality for c in data.columns}) > 1):
        defaults |= _CLIP
    info = catalogue().find_loss(name)[1]
    if data.form not in info.forms:
        raise DataError(
            f"The loss {name} learns from {' or '.join(info.forms)} data, and {data.source} holds {data.form}."
        )
    if data.form == "labelled" and any(option.name == "num_classes" and option.required for option in info.options):
        defaults["num_classes"] = int(data.classes.max()) + 1
    return name, loss_options(name, {**defaults, **(options or {})})


def choose_batches(data: Dataset, settings: Settings) -> ClassBatches | PairBatches:
    """Batches that give each item a positive and negatives."""
    if data.form == "labelled":
        return ClassBatches(data, settings.batch_size, ITEMS_PER_CLASS, settings.seed)
    return PairBatches(data, settings.batch_size, settings.seed)


def choose_plan(model: EmbeddingModel, data: Dataset, settings: Settings, device: torch.device) -> Plan:
    """How to train: the settings, with all that they leave open decided."""
    return Plan(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate or _learning_rate(model, settings),
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        schedule=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        dtype=choose_precision(settings.precision, device, model.modalities),
        mirror=_mirror(data, settings),
        seed=settings.seed,
    )


def _mirror(data: Dataset, settings: Settings) -> bool | None:
    """Whether training images are mirrored; `None` where there are none, or they are left as they are."""
    images = next((column for column in data.columns if column.modality == "image"), None)
    if images is None or settings.augment == "none":
        return None
    if settings.augment == "auto":
        return data.form == "labelled" and not are_grey(
            images.take(range(0, len(data), 1 + len(data) // _COLOUR_SAMPLE))
        )
    return settings.augment == "crop+mirror"


def _learning_rate(model: EmbeddingModel, settings: Settings) -> float:
    """What is new may move fast; what was pretrained must not forget."""
    if model.modalities == ("vector",) or settings.freeze == "backbone":
        return 1e-3
    if any(has_matrices(tower.encoders) for _, tower in model.sided_towers()):
        return 5e-4
    if not model.pretrained:
        return 5e-4
    if len(model.towers) > 1:
        return 5e-5  # two spaces have to come together, which CLIP's already have
    return {("image",): 5e-5, ("text",): 3e-5, ("text", "image"): 1e-5}[model.modalities]
