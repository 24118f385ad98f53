"""Fine-tuning from beginning to end: data, model, before, training, after, saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from finetuner_core.artifacts.folder import check_writable, find_row, write_folder, write_json
from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.forms import read_dataset, read_splits
from finetuner_core.data.images import are_grey
from finetuner_core.data.split import hold_out
from finetuner_core.data.usable import usable
from finetuner_core.errors import OptionError, PluginError
from finetuner_core.evaluation.evaluate import check_evaluable, evaluate_dataset
from finetuner_core.evaluation.report import render_comparison
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.compute import choose_device, choose_precision
from finetuner_core.training.freezing import freeze as freeze_model
from finetuner_core.training.loop import Epoch, Plan, train
from finetuner_core.training.progress import Progress
from finetuner_core.training.settings import Augment, Precision, Schedule, Settings
from finetuner_core.values import BackboneInfo, OptionValue, quote, resolve_options

TRAINING_FILE = "training.json"

# Items of a class in a batch, where there are classes enough to choose from.
ITEMS_PER_CLASS = 4


@dataclass(frozen=True)
class FitResult:
    """What a fine-tuning gave.

    Args:
        model: the fine-tuned model, in evaluation mode.
        before: metrics on the evaluation data before training, by name (`recall@1`, `mrr`, `ndcg@10`, `map`, ...).
        after: the same after it.
        history: an entry for each epoch.
        path: the folder that the model was saved in, or `None`.
    """

    model: EmbeddingModel
    before: dict[str, float]
    after: dict[str, float]
    history: list[Epoch]
    path: Path | None


def fit(
    model: EmbeddingModel | str | Path,
    train_data: Dataset | str | Path,
    eval_data: Dataset | str | Path | None = None,
    *,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    val_split: float = 0.2,
    skip_bad_items: bool = False,
    pretrained: bool = True,
    pooling: str | None = None,
    output_dim: int | None = None,
    model_options: Mapping[str, object] | None = None,
    loss: str | None = None,
    loss_options: Mapping[str, object] | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    schedule: Schedule = "cosine",
    max_grad_norm: float = 1.0,
    freeze: str | int | None = None,
    augment: Augment = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> FitResult:
    """Fine-tunes a model for search on data of one's own, and measures what that gained.

    Everything that can be wrong with the settings, the output folder and the data is said before the model is loaded.

    Args:
        model: a name, the folder of a model, or a model, which is then trained in place.
        train_data: a file or folder, or a data set: labelled items, or pairs. See `docs/data.md`.
        eval_data: the same for evaluation; where not given, a part of the training data is held out.
        out: the folder to save the model in.
        columns: for each name that Finetuner knows, the header in the file: `{"anchor": "question"}`.
        split_column: a column of the training file that tells training rows (`train`) from those for evaluation
            (`test`, `val`, `dev` or `eval`).
        val_split: the share that is held out, where neither evaluation data nor a split column is given.
        skip_bad_items: whether images that cannot be read are left out instead of ending the run.
        pretrained: whether to start from the backbone's weights; else they are random.
        pooling: one of the backbone's poolings; its first where not given.
        output_dim: adds a projection to this width.
        model_options: the backbone's own options.
        loss: a loss by name; by the form of the data where not given: `triplet` for labelled items, `infonce` for
            pairs, symmetric and with a learnable temperature for text with images.
        loss_options: the loss's own options.
        epochs: how often the data is gone through.
        batch_size: items, or pairs, in a training step.
        learning_rate: of AdamW at its peak; where not given, chosen by what is trained.
        weight_decay: of AdamW, on weight matrices.
        warmup: share of the steps in which the learning rate rises.
        schedule: how it falls afterwards, `cosine` or `linear`.
        max_grad_norm: gradients longer than this are shortened to it; 0 for never.
        freeze: `"backbone"`, or how many of its first stages stay as they are.
        augment: what happens to training images: `none`, `crop` (another part each time), `crop+mirror`; `auto` crops,
            and mirrors labelled photos in colour. Greyscale pictures (characters, scans) and images with texts, which
            may speak of left and right, are not mirrored.
        precision: `float32`, `bfloat16`, or `auto` for what is faster here.
        device: `cuda`, `mps`, `cpu`, or `auto` for the best there is.
        seed: what every random choice follows from.
        quiet: whether to print nothing.

    Returns:
        The model, its metrics before and after, and the history.

    Raises:
        FinetunerError: if anything does not fit; the message says what, and what to do.
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule=schedule,
        max_grad_norm=max_grad_norm,
        freeze=freeze,
        augment=augment,
        precision=precision,
        device=device,
        seed=seed,
    )
    progress = Progress(quiet=quiet)
    if out is not None:
        check_writable(out)
    target = choose_device(settings.device)

    # What the model is, without loading it.
    row = model.info if isinstance(model, EmbeddingModel) else find_row(str(model))
    if isinstance(model, EmbeddingModel):
        for name, value in (("pooling", pooling), ("output_dim", output_dim), ("model_options", model_options)):
            if value is not None:
                raise OptionError(f"{name} cannot be set for a model that is already built; build it with {name}.")

    # The data, and all that can be wrong with it.
    training, held_out, how = _read_data(row, train_data, eval_data, columns, split_column, val_split, settings.seed)
    training, skipped = usable(training, skip_bad_items=skip_bad_items)
    held_out, skipped_too = usable(held_out, skip_bad_items=skip_bad_items)
    check_evaluable(held_out)
    progress.line("Data", f"{training.source}: {training.summary()}")
    progress.line("Held out", f"{held_out.source}: {held_out.summary()}{how}")
    if skipped + skipped_too:
        progress.line("Skipped", f"{skipped + skipped_too:,} images that cannot be read")
    batches: ClassBatches | PairBatches
    if training.form == "labelled":
        batches = ClassBatches(training, settings.batch_size, ITEMS_PER_CLASS, settings.seed)
        if batches.left_out:
            progress.line("Left out", f"{batches.left_out:,} labels that stand on one item only, from training")
    else:
        batches = PairBatches(training, settings.batch_size, settings.seed)
    loss_name, loss_values = _choose_loss(training, loss, loss_options)

    # The model.
    torch.manual_seed(settings.seed)
    if not isinstance(model, EmbeddingModel):
        given = dict(model_options or {})
        if any(option.name == "input_size" for option in row.options):
            # A network over vectors is as wide as they are.
            given.setdefault("input_size", len(cast("list[list[float]]", training.columns[0].take([0]))[0]))
        model = build_model(str(model), pretrained=pretrained, pooling=pooling, output_dim=output_dim, **given)
    model.to(target)
    frozen = freeze_model(model, settings.freeze)
    for column in (*training.columns, *held_out.columns):
        # One item of each column tells whether they fit the model, as the width of vectors must.
        model.preprocess(column.modality).prepare(column.take([0]))
    plan = _plan(model, training, settings, target, pretrained)
    _describe(progress, model, training, settings, plan, batches, loss_name, loss_values, target)

    # Before, training, after.
    criterion = build_loss(loss_name, model.output_dim, loss_values).to(target)
    before = evaluate_dataset(model, held_out)
    progress.start(settings.epochs, batches.per_epoch)
    history = train(
        model,
        criterion,
        training,
        batches,
        plan,
        frozen=frozen,
        on_step=progress.step,
        on_epoch=progress.epoch,
    )
    after = evaluate_dataset(model, held_out)
    path = None
    if out is not None:
        record = {
            "settings": asdict(settings),
            "learning_rate": plan.learning_rate,
            "loss": {"name": loss_name, "options": loss_values},
            "data": {"train": training.summary(), "eval": held_out.summary()},
            "before": before,
            "after": after,
            "history": history,
        }
        path = _save(model, out, record)
    if not quiet:
        print(render_comparison(before, after))
    if path is not None:
        progress.line("Saved", str(path))
    return FitResult(model, before, after, history, path)


def build_loss(name: str, dim: int, options: Mapping[str, OptionValue]) -> nn.Module:
    """A loss by name, for embeddings of a width.

    Raises:
        UnknownNameError: if nobody lists it.
        PluginError: if its plugin does not give a module.
    """
    plugin, info = catalogue().find_loss(name)
    module = call(plugin, "build_loss", info=info, dim=dim, options=options)
    if not isinstance(module, nn.Module):
        raise PluginError(f'Plugin "{plugin.namespace}": build_loss gave {quote(module)}, not a module.')
    return module


def _read_data(
    row: BackboneInfo,
    train_data: Dataset | str | Path,
    eval_data: Dataset | str | Path | None,
    columns: Mapping[str, str] | None,
    split_column: str | None,
    val_split: float,
    seed: int,
) -> tuple[Dataset, Dataset, str]:
    """Training data, evaluation data, and how the second was come by."""
    if split_column is not None:
        if isinstance(train_data, Dataset) or eval_data is not None:
            raise OptionError("split_column tells rows of one file apart: give a file, and no evaluation data.")
        return *read_splits(train_data, row, split_column, columns), f", by column {split_column}"
    training = train_data if isinstance(train_data, Dataset) else read_dataset(train_data, row, columns)
    if eval_data is None:
        training, held_out, how = hold_out(training, val_split, seed)
        return training, held_out, f", {how} ({val_split:.0%})"
    held_out = eval_data if isinstance(eval_data, Dataset) else read_dataset(eval_data, row, columns)
    return training, held_out, ""


def _choose_loss(
    data: Dataset, name: str | None, options: Mapping[str, object] | None
) -> tuple[str, dict[str, OptionValue]]:
    """The loss's name, and a value for each of its options."""
    given = dict(options or {})
    if name is None and data.form == "pairs":
        name = "infonce"
        if data.columns[0].modality != data.columns[1].modality:
            given = {"symmetric": True, "learnable": True, "temperature": 0.07} | given
    name = name or "triplet"
    return name, resolve_options(catalogue().find_loss(name)[1].options, given, f"loss {name}")


def _plan(model: EmbeddingModel, data: Dataset, settings: Settings, device: torch.device, pretrained: bool) -> Plan:
    images = [column for column in data.columns if column.modality == "image"]
    mirror: bool | None = None
    if images and settings.augment != "none":
        plain = data.form == "labelled" and not are_grey(images[0].take(range(min(100, len(data)))))
        mirror = settings.augment == "crop+mirror" or (settings.augment == "auto" and plain)
    return Plan(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate or _default_learning_rate(model, settings, pretrained),
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        schedule=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        dtype=choose_precision(settings.precision, device, model.modalities),
        mirror=mirror,
        seed=settings.seed,
    )


def _default_learning_rate(model: EmbeddingModel, settings: Settings, pretrained: bool) -> float:
    """What is new may move fast; what was pretrained must not forget."""
    if model.modalities == ("vector",) or settings.freeze == "backbone":
        return 1e-3
    if not pretrained:
        return 5e-4
    return {("image",): 1e-4, ("text",): 3e-5, ("text", "image"): 1e-5}[model.modalities]


def _describe(
    progress: Progress,
    model: EmbeddingModel,
    data: Dataset,
    settings: Settings,
    plan: Plan,
    batches: ClassBatches | PairBatches,
    loss_name: str,
    loss_values: Mapping[str, OptionValue],
    device: torch.device,
) -> None:
    """Says what is about to happen."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    progress.line(
        "Model",
        f"{model.info.full_name}, {model.pooling} pooling, width {model.output_dim}; "
        f"{trained:,} of {total:,} parameters are trained",
    )
    if model.new_weights:
        names = ", ".join(model.new_weights[:3]) + (", ..." if len(model.new_weights) > 3 else "")
        progress.line("Note", f"{len(model.new_weights)} weights were not in the checkpoint and start anew: {names}")
    options = ", ".join(f"{name} {value}" for name, value in loss_values.items())
    progress.line(
        "Training",
        f"{loss_name} loss ({options}), {settings.epochs} epochs of {batches.per_epoch} steps, "
        f"batch {settings.batch_size}, learning rate {plan.learning_rate:g}, "
        f"{str(plan.dtype).removeprefix('torch.')} on {device}",
    )
    if any(column.modality == "image" for column in data.columns):
        how = {None: "not augmented", False: "cropped at random", True: "cropped and mirrored at random"}[plan.mirror]
        progress.line("Images", f"{how} (--augment)")


def _save(model: EmbeddingModel, out: str | Path, record: Mapping[str, object]) -> Path:
    def write(folder: Path) -> None:
        model.write_into(folder)
        write_json(folder / TRAINING_FILE, record)

    return write_folder(out, write)
