"""What is decided where a person left it open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.images import are_grey
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.sources import Part, Sources
from finetuner_core.errors import DataError, OptionError
from finetuner_core.evaluation.evaluate import check_metrics
from finetuner_core.evaluation.result import Evaluation
from finetuner_core.losses.build import loss_options
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.lora import has_matrices
from finetuner_core.training.loop import Plan
from finetuner_core.training.precision import choose_precision
from finetuner_core.training.settings import Settings
from finetuner_core.values import OptionValue, near, quote

# Items of a class in a batch, where there are classes enough to choose from.
ITEMS_PER_CLASS = 4

# CLIP (https://arxiv.org/abs/2103.00020) starts at this temperature.
_CLIP = {"symmetric": True, "learnable": True, "temperature": 0.07}

# About how many images, of all labels, are looked at to tell whether there is any colour in them.
_COLOUR_SAMPLE = 100


def choose_loss(
    part: Part, name: str | None, options: Mapping[str, object] | None, *, two_towers: bool = False
) -> tuple[str, dict[str, OptionValue]]:
    """The loss's name, and a value for each of its options.

    A loss that keeps something for each class is told how many there are in labelled data.

    Args:
        part: the data, which may ask for a loss of its own.
        name: of the loss of all parts that do not.
        options: of that loss.
        two_towers: whether what asks and what is found have a tower each.

    Raises:
        UnknownNameError: if nobody lists the loss.
        OptionError: if an option is unknown or not allowed.
        DataError: if the loss does not learn from data of this form.
    """
    data = part.train
    if part.loss is not None or part.loss_options is not None:
        name, options = part.loss or name, part.loss_options
    name = name or _loss_name(data)
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


def _loss_name(data: Dataset) -> str:
    if data.form != "scored":
        return "infonce"
    # Only the order of the scores of pairs is known to mean something; those of candidates are a teacher's.
    return "cosent" if len(data.columns) == 2 else "kl"


def choose_metrics(data: Sources, names: Sequence[str] | None) -> dict[str, Sequence[str] | None]:
    """For each evaluation data those of some metrics that its form has; None, for the usual ones, where it has none.

    Raises:
        OptionError: if one is a metric of no evaluation data.
    """

    def has(own: Dataset | SearchSet, name: str) -> bool:
        try:
            check_metrics(own, [name])
        except OptionError:
            return False
        return True

    for name in names or ():
        if not any(has(own, name) for own in data.evals.values()):
            check_metrics(data.eval, [name])
    return {each: [name for name in names or () if has(own, name)] or None for each, own in data.evals.items()}


def choose_judge(
    data: Sources, before: Mapping[str, Evaluation], metric: str | None
) -> Callable[[Mapping[str, Evaluation]], float]:
    """What tells which of several measurements is best: the mean over all evaluation data of one metric of each.

    Args:
        data: what is measured.
        before: a measurement of it.
        metric: its name; else the one that says most of data of that form, or the first that is measured.

    Raises:
        OptionError: if it is not measured.
    """
    metrics = {name: metric or _metric(own, before[name]) for name, own in data.evals.items()}
    for name, chosen in metrics.items():
        if chosen not in before[name]:
            raise OptionError(
                f"best_metric is {quote(chosen)}, which is not measured on {name}.{near(chosen, before[name])}\n"
                f"Measured are {', '.join(before[name])}."
            )
    return lambda measured: sum(measured[name][chosen] for name, chosen in metrics.items()) / len(metrics)


def _metric(data: Dataset | SearchSet, measured: Evaluation) -> str:
    form = "pairs" if isinstance(data, SearchSet) else data.form
    usual = {"labelled": "map", "pairs": "ndcg@10", "scored": "spearman"}[form]
    return usual if usual in measured else next(iter(measured))


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
        chunk_size=settings.chunk_size,
        workers=settings.workers,
        skip_bad_steps=settings.skip_bad_steps,
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
