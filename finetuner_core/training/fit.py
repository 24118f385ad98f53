"""Fine-tuning from beginning to end: data, model, before, training, after, saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from finetuner_core.artifacts.folder import write_folder, write_json
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.sources import read_sources
from finetuner_core.errors import OptionError
from finetuner_core.evaluation.report import render_comparison
from finetuner_core.losses.build import build_loss
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.choices import choose_plan
from finetuner_core.training.course import Course
from finetuner_core.training.every import Every, seconds_of
from finetuner_core.training.keeping import kept_run
from finetuner_core.training.material import Material
from finetuner_core.training.objective import Objective
from finetuner_core.training.progress import Progress
from finetuner_core.training.provenance import machine, of_data, settings_as_json, versions
from finetuner_core.training.result import FitResult
from finetuner_core.training.run import Run
from finetuner_core.training.settings import Augment, Precision, Schedule, Settings
from finetuner_core.training.stop import Stop
from finetuner_core.training.wanted import Wanted
from finetuner_core.values import quote

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
    checkpoint_every: int | str | None = None,
    keep_checkpoints: int = 2,
    max_time: float | str | None = None,
    allow_changed_versions: bool = False,
    quiet: bool = False,
) -> FitResult:
    """Fine-tunes a model for search on data of one's own, and measures what that gained.

    What is wrong with the settings, the output folder or the data is said before the model is loaded; what only the
    model can tell (how many stages it has, how wide its vectors are) before it is trained.

    With `out` a run is kept in `OUT.run` beside it, and in `OUT/run` when it is done: its settings, a line for each
    step, and while it goes on its checkpoints. If it ends early, for whatever reason, the same call goes on where it
    was and ends with the same model, bit by bit.

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
            not given, all where they fit into memory, and else as few as compute at full speed.
        workers: how many threads prepare items ahead of the steps that need them; 0 for none.
        skip_bad_steps: whether a step whose loss or gradient is not finite is left out, instead of ending the run.
        cache: a folder that keeps what frozen parts of the network give of each item, for later runs; else it is kept
            for this run alone.
        views: in how many ways each image is varied where that is kept, instead of anew in each epoch.
        checkpoint_every: how often the run's state is kept: after so many steps (`500`), or so much time (`"30s"`,
            `"10m"`, `"1h"`). Where not given every ten minutes. There is one at the end of training in any case.
        keep_checkpoints: how many are kept, the newest.
        max_time: after how long the run is to end, to go on later: in seconds, or as `"30m"`. The step that it is in is
            finished.
        allow_changed_versions: whether a run goes on although the versions of libraries have changed.
        quiet: whether to print nothing.

    Returns:
        The model, its metrics before and after, and the history.

    Raises:
        Interrupted: if a run with `out` was asked to end: by Ctrl-C, by SIGTERM, or by `max_time`.
        FinetunerError: if anything does not fit; the message says what, and what to do.
    """
    arguments = settings_as_json(locals())
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
    if out is None and (checkpoint_every, max_time) != (None, None):
        raise OptionError("checkpoint_every and max_time are for a run that is kept in a folder: give out as well.")
    if type(keep_checkpoints) is not int or keep_checkpoints < 1:
        raise OptionError(f"keep_checkpoints is {quote(keep_checkpoints)}; it is a whole number, at least 1.")
    every = Every.of(checkpoint_every)
    stop = Stop(None if max_time is None else seconds_of("max_time", max_time))
    target = choose_device(settings.device)
    wanted = Wanted(
        model,
        pretrained,
        pooling,
        pooling_options,
        output_dim,
        text_model,
        model_options,
        lora,
        lora_options,
        adapter,
    )
    with kept_run(out, arguments, keep=keep_checkpoints, stop=stop) as run:
        progress = Progress(quiet=quiet, log=None if run is None else run.say)

        # The data, and all that can be wrong with it.
        data = read_sources(
            wanted.rows()[-1],
            train_data,
            eval_data,
            columns=columns,
            split_column=split_column,
            val_split=val_split,
            skip_bad_items=skip_bad_items,
            seed=settings.seed,
            encoding=encoding,
        )
        material = Material.of(
            data,
            settings,
            metrics=metrics,
            loss=loss,
            loss_options=loss_options,
            two_towers=text_model is not None,
        )
        progress.data(data, material.batches)
        if run is not None:
            plugins = {row.namespace for row in wanted.rows()}
            plugins |= {catalogue().find_loss(name)[0].namespace for name, _ in material.losses}
            facts = {"data": of_data(data), "versions": versions(plugins), "machine": machine(target)}
            run.begin(facts, settings.seed, allow_changed_versions=allow_changed_versions)

        # The model.
        built, frozen = wanted.build(material, settings, target)
        objectives = [
            Objective(
                part.train,
                build_loss(name, built.output_dim, values, settings.matryoshka, settings.memory).to(target),
                batches,
            )
            for part, (name, values), batches in zip(data.parts, material.losses, material.batches, strict=True)
        ]
        for objective in objectives:
            objective.check(built.output_dim)
        plan = choose_plan(built, data.train, settings, target)
        progress.model(built)
        progress.plan(plan, settings.batch_size, material.steps, material.losses, target)

        # Before, training, after.
        course = Course(built, frozen, objectives, material, plan, settings, progress, run, stop, every)
        measured, history, checks = course.go(best_metric=best_metric, cache=cache, adapter=adapter)
        if run is not None:
            losses = [{"loss": {"name": name, "options": values}} for name, values in material.losses]
            record = {
                "settings": asdict(settings),
                "learning_rate": plan.learning_rate,
                "data": [
                    {"name": part.name, "train": part.train.summary(), "weight": part.weight} | own
                    for part, own in zip(data.parts, losses, strict=True)
                ],
                "evaluation": [
                    {
                        "name": name,
                        "data": data.evals[name].summary(),
                        "before": before,
                        "after": after,
                        "intervals": {"before": before.intervals, "after": after.intervals},
                    }
                    for name, before, after in measured
                ],
                "checks": [check._asdict() for check in checks],
                "history": history,
            }
        for each in measured:
            if len(measured) > 1:
                progress.result(f"\n{each.name}")
            progress.result(render_comparison(each.before, each.after))
        if run is not None:
            progress.line("Saved", str(_save(built, run, record, adapter)))
        return FitResult(built, tuple(measured), history, checks, None if run is None else run.out)


def _save(model: EmbeddingModel, run: Run, record: Mapping[str, object], adapter: bool) -> Path:
    def write(folder: Path) -> None:
        write_json(folder / TRAINING_FILE, record)
        run.copy_into(folder)
        model.write_into(folder, adapter=adapter)

    return write_folder(run.out, write)
