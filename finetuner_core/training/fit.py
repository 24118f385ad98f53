"""Fine-tuning from beginning to end: data, model, before, training, after, saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch

from finetuner_core.artifacts.folder import check_writable, write_folder, write_json
from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.findings import check_evaluable
from finetuner_core.data.sources import Sources, read_sources
from finetuner_core.errors import OptionError, TrainingError
from finetuner_core.evaluation.evaluate import evaluate_dataset
from finetuner_core.evaluation.report import render_comparison
from finetuner_core.evaluation.result import Evaluation
from finetuner_core.losses.build import build_loss
from finetuner_core.modeling import lora as lora_matrices
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.best import BestWeights
from finetuner_core.training.choices import choose_batches, choose_judge, choose_loss, choose_metrics, choose_plan
from finetuner_core.training.feed import feeds_of
from finetuner_core.training.freezing import batch_statistics
from finetuner_core.training.freezing import freeze as freeze_model
from finetuner_core.training.frozen.feeds import cached_feeds
from finetuner_core.training.loop import DivergedError, train
from finetuner_core.training.objective import Objective
from finetuner_core.training.progress import Progress
from finetuner_core.training.result import FitResult, Measured
from finetuner_core.training.settings import Augment, Precision, Schedule, Settings
from finetuner_core.values import RESERVED_OPTIONS, Side, resolve_options

TRAINING_FILE = "training.json"


def fit(
    model: EmbeddingModel | str | Path,
    train_data: object,
    eval_data: object = None,
    *,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
    val_split: float = 0.2,
    skip_bad_items: bool = False,
    encoding: str | None = None,
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
    matryoshka: Sequence[int] | None = None,
    memory: int | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    metrics: Sequence[str] | None = None,
    best_metric: str | None = None,
    augment: Augment = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    seed: int = 0,
    chunk_size: int | None = None,
    workers: int = 1,
    skip_bad_steps: bool = False,
    cache: str | Path | None = None,
    views: int = 4,
    quiet: bool = False,
) -> FitResult:
    """Fine-tunes a model for search on data of one's own, and measures what that gained.

    What is wrong with the settings, the output folder or the data is said before the model is loaded; what only the
    model can tell (how many stages it has, how wide its vectors are) before it is trained.

    Args:
        model: a name, the folder of a model, or a model, which is then trained in place.
        train_data: a file or folder, something that is in memory (a frame of pandas, a list of rows), or a data set;
            see `docs/data.md`. Of several, each step takes a batch of one; a `TrainingSet` gives one its weight, its
            loss and its columns.
        eval_data: the same for evaluation; where not given, a part of the training data is held out.
        out: the folder to save the model in.
        columns: for each name that Finetuner knows, the header in the file: `{"anchor": "question"}`.
        split_column: a column of the training file that tells training rows (`train`) from those for evaluation
            (`test`, `val`, `dev` or `eval`).
        val_split: the share that is held out, where neither evaluation data nor a split column is given.
        skip_bad_items: whether rows that cannot be used are left out instead of ending the run: with an image that
            cannot be read, an empty cell, a score that is no number.
        encoding: of files of text that are neither UTF-8 nor say so themselves, such as `"cp1252"`.
        pretrained: whether to start from the backbone's weights; else they are random.
        pooling: one of the backbone's poolings; its first where not given.
        pooling_options: the pooling's own options.
        output_dim: adds a projection to this width.
        text_model: a second model, a tower of its own for the texts that ask, of pairs the anchors; `model` is then the
            tower of what is found. Each gets a projection into the space that they share, as wide as the narrower of
            the two unless `output_dim` says otherwise.
        model_options: the backbone's own options; of two towers each takes those that it has.
        loss: a loss by name; where not given `infonce`, symmetric and with a learnable temperature for text with images
            and for two towers; for scored data `cosent`, and `kl` where an anchor has several candidates.
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
        matryoshka: widths below the model's own at which the first numbers of a vector are to be a vector too (Kusupati
            et al. 2022, https://arxiv.org/abs/2205.13147). Each is evaluated as well.
        memory: how many embeddings of past batches are compared with beside those of the batch (Wang et al. 2020,
            https://arxiv.org/abs/1912.06798).
        metrics: what is measured, such as `["recall@20", "ndcg@10"]`; see `docs/evaluation.md`. Of several
            evaluation sets each is measured by those that data of its form has.
        eval_every: after how many steps to evaluate in the middle of training. The weights that were best are those
            that the run ends with. They are chosen on the evaluation data, whose metrics flatter them for it.
        patience: after how many such evaluations without a better one training ends.
        best_metric: what decides which weights are best; where not given `map` for labelled data, `ndcg@10` for pairs,
            `spearman` for scored ones, or the first of `metrics` where that is not among them. Of several evaluation
            sets it is the mean.
        augment: what happens to training images: `none`, `crop` (another part each time), `crop+mirror`; `auto` crops,
            and mirrors labelled photos in colour. Greyscale pictures (characters, scans) and images with texts, which
            may speak of left and right, are not mirrored.
        precision: `float32`, `bfloat16`, or `auto` for what is faster here.
        device: `cuda`, `mps`, `cpu`, or `auto` for the best there is.
        seed: what every random choice follows from.
        chunk_size: the most items that keep what they need for the backward pass at once; the others are computed
            twice, with the same gradients (GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983). Where it is
            not given, as many as fit into memory.
        workers: how many threads prepare items ahead of the steps that need them; 0 for none.
        skip_bad_steps: whether a step whose loss or gradient is not finite is left out, instead of ending the run.
        cache: a folder that keeps what frozen parts of the network give of each item, for later runs; else it is kept
            for this run alone.
        views: in how many ways each image is varied where that is kept, instead of anew in each epoch.
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
        matryoshka=tuple(matryoshka or ()),
        memory=memory,
        augment=augment,
        precision=precision,
        device=device,
        seed=seed,
        chunk_size=chunk_size,
        workers=workers,
        skip_bad_steps=skip_bad_steps,
        views=views,
    )
    if best_metric is not None and eval_every is None:
        raise OptionError("best_metric chooses among weights in the middle of training: give eval_every as well.")
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
        encoding=encoding,
    )
    for held_out in data.evals.values():
        check_evaluable(held_out)
    metrics_of = choose_metrics(data, metrics)
    losses = [choose_loss(part, loss, loss_options, two_towers=text_model is not None) for part in data.parts]
    batches = [choose_batches(part.train, settings) for part in data.parts]
    weights = [part.weight for part in data.parts if part.weight is not None] or None
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
    for column, side in _columns(data):
        # One item of each column tells whether they fit the model, as the width of vectors must.
        model.preprocess(column.modality, side).prepare(column.take([0]))
    objectives = [
        Objective(
            part.train,
            build_loss(name, model.output_dim, values, settings.matryoshka, settings.memory).to(target),
            own_batches,
        )
        for part, (name, values), own_batches in zip(data.parts, losses, batches, strict=True)
    ]
    for objective in objectives:
        objective.check(model.output_dim)
    plan = choose_plan(model, data.train, settings, target)
    progress.model(model)
    progress.plan(plan, settings.batch_size, sum(own.per_epoch for own in batches), losses, target)

    # Before, training, after.
    widths = sorted({*settings.matryoshka} - {model.output_dim}, reverse=True)

    def measure(model: EmbeddingModel = model) -> dict[str, Evaluation]:
        return {
            name: evaluate_dataset(model, own, metrics=metrics_of[name], widths=widths)
            for name, own in data.evals.items()
        }

    before = measure()
    with TemporaryDirectory(prefix="finetuner-") as scratch:
        best = None
        if settings.eval_every is not None:
            best = BestWeights(
                {"model": model} | {f"loss {number}": own.loss for number, own in enumerate(objectives)},
                measure,
                choose_judge(data, before, best_metric),
                Path(scratch),
                every=settings.eval_every,
                patience=settings.patience,
                on_check=progress.check,
            )
        feeds = []
        for objective in objectives:
            cached = cached_feeds(
                model,
                objective.data,
                feeds_of(model, objective.data, plan.mirror),
                frozen,
                folder=Path(scratch if cache is None else cache).expanduser(),
                dtype=plan.dtype,
                seed=plan.seed,
                views=settings.views,
                epochs=plan.epochs,
                on_progress=progress.filling,
            )
            feeds.append(cached.feeds)
            progress.cached(cached.said)
        try:
            history = train(
                model,
                objectives,
                plan,
                feeds=feeds,
                weights=weights,
                frozen=frozen,
                on_step=progress.step,
                on_epoch=progress.epoch,
                is_done=(lambda step, steps: False) if best is None else best.after_step,
            )
        except DivergedError as error:
            if out is None:
                raise
            kept = model.save(f"{out}-step-{error.done}", adapter=adapter)
            raise TrainingError(f"{error}\nThe model as it was before that step is in {kept}.") from None
        if best is not None:
            progress.kept(best.restore())
    after = measure() if best is None or best.best is None else best.best
    measured = tuple(Measured(name, before[name], after[name]) for name in before)
    checks = [] if best is None else best.checks
    path = None
    if out is not None:
        recorded = [{"loss": {"name": name, "options": values}} for name, values in losses]
        record = {
            "settings": asdict(settings),
            "learning_rate": plan.learning_rate,
            "data": [
                {"name": part.name, "train": part.train.summary(), "weight": part.weight} | loss
                for part, loss in zip(data.parts, recorded, strict=True)
            ],
            "evaluation": [
                {"name": name, "data": data.evals[name].summary(), "before": before, "after": after}
                for name, before, after in measured
            ],
            "checks": [check._asdict() for check in checks],
            "history": history,
        }
        path = _save(model, out, record, adapter)
    if not quiet:
        for each in measured:
            if len(measured) > 1:
                print(f"\n{each.name}")
            print(render_comparison(each.before, each.after))
    if path is not None:
        progress.line("Saved", str(path))
    return FitResult(model, measured, history, checks, path)


def _columns(data: Sources) -> Iterator[tuple[Column, Side | None]]:
    """Every column, with what its items are."""
    for own in (*(part.train for part in data.parts), *data.evals.values()):
        if isinstance(own, Dataset):
            yield from zip(own.columns, own.sides, strict=True)
        else:
            yield from ((own.queries, "query"), (own.corpus, "document"))


def _save(model: EmbeddingModel, out: str | Path, record: Mapping[str, object], adapter: bool) -> Path:
    def write(folder: Path) -> None:
        write_json(folder / TRAINING_FILE, record)
        model.write_into(folder, adapter=adapter)

    return write_folder(out, write)
