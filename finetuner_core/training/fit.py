"""Fine-tuning from beginning to end: data, model, before, training, after, saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch

from finetuner_core.artifacts.folder import check_writable, write_folder, write_json
from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.sources import read_sources
from finetuner_core.errors import OptionError
from finetuner_core.evaluation.evaluate import check_evaluable, evaluate_dataset
from finetuner_core.evaluation.report import render_comparison
from finetuner_core.losses.build import build_loss
from finetuner_core.modeling import lora as lora_matrices
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.choices import choose_batches, choose_loss, choose_plan
from finetuner_core.training.freezing import batch_statistics
from finetuner_core.training.freezing import freeze as freeze_model
from finetuner_core.training.loop import Epoch, train
from finetuner_core.training.progress import Progress
from finetuner_core.training.settings import Augment, Precision, Schedule, Settings
from finetuner_core.training.step import Objective
from finetuner_core.values import RESERVED_OPTIONS, resolve_options

TRAINING_FILE = "training.json"


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
    pooling_options: Mapping[str, object] | None = None,
    output_dim: int | None = None,
    text_model: str | Path | None = None,
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
    lora: int | None = None,
    lora_options: Mapping[str, object] | None = None,
    adapter: bool = False,
    matryoshka: Sequence[int] = (),
    memory: int | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    best_metric: str | None = None,
    augment: Augment = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> FitResult:
    """Fine-tunes a model for search on data of one's own, and measures what that gained.

    What is wrong with the settings, the output folder or the data is said before the model is loaded; what only the
    model can tell (how many stages it has, how wide its vectors are) before it is trained.

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
        pooling_options: the pooling's own options.
        output_dim: adds a projection to this width.
        text_model: a second model, a tower of its own for the texts that ask, of pairs the anchors; `model` is then the
            tower of what is found. Each gets a projection into the space that they share, as wide as the narrower of
            the two unless `output_dim` says otherwise.
        model_options: the backbone's own options; of two towers each takes those that it has.
        loss: a loss by name; `infonce` where not given, symmetric and with a learnable temperature for text with
            images and for two towers.
        loss_options: the loss's own options.
        epochs: how often the data is gone through.
        batch_size: items, or pairs, in a training step.
        learning_rate: of AdamW at its peak; where not given, chosen by what is trained. What starts from a guess beside
            a pretrained backbone (a projection, a pooling's or a loss's own parameters) learns at 1e-3 at least.
        weight_decay: of AdamW, on weight matrices.
        warmup: share of the steps in which the learning rate rises.
        schedule: how it falls afterwards, `cosine` or `linear`.
        max_grad_norm: gradients longer than this are shortened to it; 0 for never.
        freeze: what stays as it is: `"backbone"`, the backbone of one tower (`"text"`, `"image"`, `"query"`,
            `"document"`), or how many of its first stages.
        lora: the rank of small matrices that are trained beside the backbone's layers instead of the backbone (Hu et
            al. 2021, https://arxiv.org/abs/2106.09685); it needs PEFT: `pip install finetuner-core[lora]`.
        lora_options: `alpha`, `dropout` and `targets`, as `finetuner_core.modeling.lora` describes them.
        adapter: whether to save these matrices alone, which need the backbone again; else they are merged into it.
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
        lora=lora,
        eval_every=eval_every,
        patience=patience,
        matryoshka=tuple(matryoshka),
        memory=memory,
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
    if isinstance(model, EmbeddingModel):
        row = model.info
        built = {
            "pooling": pooling,
            "pooling_options": pooling_options,
            "output_dim": output_dim,
            "text_model": text_model,
            "model_options": model_options,
        }
        for name, value in built.items():
            if value is not None:
                raise OptionError(f"{name} cannot be set for a model that is already built; build it with {name}.")
    else:
        asking = None if text_model is None else model_name(text_model)
        row = find_row(model_name(model), asking)

    given = dict(model_options or {})
    for name in given:
        if name in RESERVED_OPTIONS:
            raise OptionError(
                f"{name} is not an option of the backbone; give it as {name}=... (--{name.replace('_', '-')})."
            )

    # The data, and all that can be wrong with it.
    data = read_sources(
        row,
        train_data,
        eval_data,
        columns=columns,
        split_column=split_column,
        val_split=val_split,
        skip_bad_items=skip_bad_items,
        seed=settings.seed,
    )
    check_evaluable(data.eval)
    batches = choose_batches(data.train, settings)
    loss_name, loss_values = choose_loss(data.train, loss, loss_options, two_towers=text_model is not None)
    if lora_options and lora is None:
        raise OptionError("lora_options say how LoRA's matrices are, and lora, which asks for them, is not given.")
    lora_values = resolve_options(lora_matrices.OPTIONS, lora_options or {}, "lora")
    progress.data(data, batches)

    # The model.
    torch.manual_seed(settings.seed)
    if not isinstance(model, EmbeddingModel):
        if any(option.name == "input_size" for option in row.options):
            # A network over vectors is as wide as they are.
            given.setdefault("input_size", len(cast("list[list[float]]", data.train.columns[0].take([0]))[0]))
        model = build_model(
            model_name(model),
            pretrained=pretrained,
            pooling=pooling,
            pooling_options=pooling_options,
            output_dim=output_dim,
            text_model=asking,
            **given,
        )
    for _, tower in model.sided_towers():
        if settings.lora is not None:
            lora_matrices.inject(tower.encoders, settings.lora, lora_values)
        if adapter:
            tower.check_adapter()
    model.to(target)
    frozen = [*freeze_model(model, settings.freeze), *batch_statistics(model)]
    for part in (data.train, data.eval):
        for column, side in zip(part.columns, part.sides, strict=True):
            # One item of each column tells whether they fit the model, as the width of vectors must.
            model.preprocess(column.modality, side).prepare(column.take([0]))
    criterion = build_loss(loss_name, model.output_dim, loss_values, settings.matryoshka, settings.memory).to(target)
    plan = choose_plan(model, data.train, settings, target)
    progress.model(model)
    progress.plan(plan, settings.batch_size, batches.per_epoch, f"{loss_name} loss", loss_values, target)

    # Before, training, after.
    before = evaluate_dataset(model, data.eval)
    history = train(
        model,
        [Objective(data.train, criterion, batches)],
        plan,
        frozen=frozen,
        on_step=progress.step,
        on_epoch=progress.epoch,
    )
    after = evaluate_dataset(model, data.eval)
    path = None
    if out is not None:
        record = {
            "settings": asdict(settings),
            "learning_rate": plan.learning_rate,
            "loss": {"name": loss_name, "options": loss_values},
            "data": {"train": data.train.summary(), "eval": data.eval.summary()},
            "before": before,
            "after": after,
            "history": history,
        }
        path = _save(model, out, record, adapter)
    if not quiet:
        print(render_comparison(before, after))
    if path is not None:
        progress.line("Saved", str(path))
    return FitResult(model, before, after, history, path)


def _save(model: EmbeddingModel, out: str | Path, record: Mapping[str, object], adapter: bool) -> Path:
    def write(folder: Path) -> None:
        write_json(folder / TRAINING_FILE, record)
        model.write_into(folder, adapter=adapter)

    return write_folder(out, write)
