"""The rows: what is compared with what, on what, and what is hoped for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import pairs, pictures, startup
from benchmarks.speed.figures import Turn, spread
from benchmarks.speed.pairs import Pair
from benchmarks.speed.suite import FASTEST, Against, Options, Outcome, Report, Side, compare, describe, play
from benchmarks.speed.table import megabytes, short, table, with_range
from benchmarks.speed.work import Work

IMAGE_MODEL = "mobilenetv2_100"
OURS, THEIRS, LOOP = "finetuner", "sentence-transformers", "timm + metric-learning loop"
FLOAT, HALF = f"{OURS}, float32", f"{OURS}, bfloat16"
_EXACT, _FAST = {"precision": "float32"}, {"precision": "bfloat16"}


def text_train(options: Options) -> Report:
    """Training on text with a realistic spread of lengths."""
    work = _text_work(options, options.size(64, 4), 5)
    outcomes = play(options, _text_sides(), work, rounds=5)
    lengths = sorted(length for turn in _turns_of(outcomes, OURS)[:5] for length in turn["lengths"])
    said = f", {_lengths(lengths)}" if lengths else ""
    title = f"Text training, {work.batch_size} pairs a step{said}"
    against = [
        Against(FLOAT, THEIRS, 6, 1 / 3),
        Against(HALF, f"{THEIRS}, bf16", 6, 1 / 3),
        Against(HALF, THEIRS, None, 1 / 3),
        Against(FLOAT, FASTEST),
        Against(HALF, FASTEST),
    ]
    return describe("text-train", title, outcomes, against, unit="pairs", extra={"tokens / s": _rates(outcomes)})


def text_train_equal(options: Options) -> Report:
    """Training on texts that are all equally long, where there is no padding to save."""
    tokens = options.size(64, 16)
    batch_size = options.size(64, 4)
    work = _work(options, batch_size, _steps(options, 5), max_length=tokens)
    work = _with(work, pairs=pairs.equal(work.steps * batch_size, tokens))
    outcomes = play(options, _text_sides(), work, rounds=5)
    title = f"Text training, {batch_size} pairs a step, every text cut at {tokens} tokens"
    against = [Against(FLOAT, THEIRS, 1.3), Against(HALF, f"{THEIRS}, bf16", 1.3), Against(FLOAT, FASTEST)]
    return describe("text-train-equal", title, outcomes, against, unit="pairs", extra={"tokens / s": _rates(outcomes)})


def encode(options: Options) -> Report:
    """Encoding texts, and how near the vectors are to those of sentence-transformers in float32."""
    from benchmarks.speed.quality import cosines

    work = _text_work(options, options.size(512, 16), 1)
    work = _with(work, steps=1)
    kept = {
        name: str(options.scratch / f"vectors-{number}.npy")
        for number, name in enumerate((FLOAT, HALF, f"{OURS}, int8", THEIRS, f"{THEIRS}, bf16", f"{THEIRS}, int8"))
    }
    sides = [
        Side(FLOAT, "ours:encoding", {**_EXACT, "keep": kept[FLOAT]}),
        Side(THEIRS, "sbert:encoding", {"keep": kept[THEIRS]}),
        Side(HALF, "ours:encoding", {**_FAST, "keep": kept[HALF]}, bfloat16=True),
        Side(
            f"{THEIRS}, bf16", "sbert:encoding", {"dtype": "bfloat16", "keep": kept[f"{THEIRS}, bf16"]}, bfloat16=True
        ),
        Side(f"{OURS}, int8", "ours:encoding", {"int8": True, "keep": kept[f"{OURS}, int8"]}),
        Side(f"{THEIRS}, int8", "sbert:encoding", {"int8": True, "keep": kept[f"{THEIRS}, int8"]}),
    ]
    outcomes = play(options, sides, work, rounds=5)
    near: dict[str, str] = {}
    if Path(kept[THEIRS]).exists():
        import numpy as np

        reference = np.load(kept[THEIRS])
        for name, path in kept.items():
            if Path(path).exists():
                found = cosines(np.load(path), reference)
                near[name] = f"{found.min():.5f}, {found.mean():.5f}"
    against = [
        Against(FLOAT, THEIRS, 2),
        Against(HALF, f"{THEIRS}, bf16", 2),
        Against(HALF, THEIRS, 3.5),
        Against(f"{OURS}, int8", f"{THEIRS}, int8"),
        Against(FLOAT, FASTEST),
        Against(HALF, FASTEST),
    ]
    title = f"Encoding {2 * work.batch_size:,} texts; int8 is of the vectors that come out, quantised"
    extra = {"cosine with theirs, least and mean": near}
    return describe("encode", title, outcomes, against, unit="texts", extra=extra)


def image_train(options: Options) -> Report:
    """Training a CNN, beside a loop as tutorials write it."""
    work = _image_work(options, options.size(32, 4), _steps(options, 8))
    sides = [
        Side(FLOAT, "ours:image_training", {**_EXACT, "augment": "crop+mirror"}),
        Side(LOOP, "plain:image_training"),
        Side(f"{LOOP}, channels_last", "plain:image_training", {"channels_last": True}),
        Side(HALF, "ours:image_training", {**_FAST, "augment": "crop+mirror"}, bfloat16=True),
        Side(
            f"{LOOP}, channels_last, bf16", "plain:image_training", {"channels_last": True, "bf16": True}, bfloat16=True
        ),
    ]
    outcomes = play(options, sides, work, rounds=8)
    against = [Against(FLOAT, LOOP, 1.8), Against(HALF, LOOP, 1.8), Against(FLOAT, FASTEST), Against(HALF, FASTEST)]
    title = f"Image training, {IMAGE_MODEL} at 224 pixels from random weights, {work.batch_size} images a step"
    return describe("image-train", title, outcomes, against, unit="images")


def frozen_text(options: Options) -> Report:
    """Training a projection beside a frozen text backbone, ten epochs from the start to the end."""
    epochs, batch_size = options.size(10, 2), options.size(32, 4)
    rows = _pairs(options, batch_size * options.size(4, 2) + 8)
    work = _work(options, batch_size, options.size(4, 2), epochs=epochs, pairs=rows[:-8], held_out=rows[-8:])
    sides = [
        Side(FLOAT, "ours:frozen_text", _EXACT),
        Side(THEIRS, "sbert:frozen_text"),
        Side(HALF, "ours:frozen_text", _FAST, bfloat16=True),
        Side(f"{THEIRS}, bf16", "sbert:frozen_text", {"bf16": True}, bfloat16=True),
    ]
    outcomes = play(options, sides, work, rounds=3, fresh=True)
    title = f"Frozen backbone, text: {epochs} epochs of {len(work.rows())} pairs, filling the cache included"
    against = [Against(FLOAT, THEIRS, 15), Against(HALF, f"{THEIRS}, bf16", 15), Against(HALF, FASTEST)]
    return describe("frozen-text", title, outcomes, against, unit="pairs")


def frozen_image(options: Options) -> Report:
    """The same with a frozen CNN, beside a loop as tutorials write it."""
    epochs = options.size(10, 2)
    work = _with(_image_work(options, options.size(32, 16), options.size(16, 2)), epochs=epochs)
    sides = [
        Side(FLOAT, "ours:frozen_images", _EXACT),
        Side(LOOP, "plain:frozen_images"),
        Side(HALF, "ours:frozen_images", _FAST, bfloat16=True),
    ]
    outcomes = play(options, sides, work, rounds=3, fresh=True)
    title = f"Frozen backbone, {IMAGE_MODEL}: {epochs} epochs of {len(work.labels)} images, filling the cache included"
    against = [Against(FLOAT, LOOP, 15), Against(HALF, LOOP, 15)]
    return describe("frozen-image", title, outcomes, against, unit="images")


def chunked(options: Options) -> Report:
    """What gradients in chunks cost, beside the same batch at once."""
    work = _brief_work(options, options.size(256, 8), _steps(options, 5))
    whole, few = f"{OURS}, at once", f"{OURS}, chunks of 64 items"
    sides = [
        Side(whole, "ours:text_training", {**_EXACT, "chunk_size": 2 * work.batch_size}),
        Side(few, "ours:text_training", {**_EXACT, "chunk_size": options.size(64, 4)}),
    ]
    outcomes = play(options, sides, work, rounds=5)
    found = compare(outcomes, Against(whole, few))
    report = describe("chunked", f"Chunked gradients, {work.batch_size} pairs a step", outcomes, [], unit="pairs")
    if found is None:
        return report
    more = f"Chunks take {with_range(found['seconds'])} times as long (target ≤ 1.35)."
    return Report(f"{report.text}\n\n{more}", [*report.records, {"row": "chunked", **found}])


def memory(options: Options) -> Report:
    """Memory against the size of a batch, one step each."""
    sizes = (4, 8) if options.quick else (64, 256, 1024, 4096)
    largest = _brief_work(options, sizes[-1], 1)
    records: list[dict[str, Any]] = []
    rows = []
    for size in sizes:
        work = _with(largest, batch_size=size)
        sides = [
            Side(OURS, "ours:text_training", _EXACT),
            Side(f"{OURS}, chunks of 64 items", "ours:text_training", {**_EXACT, "chunk_size": 64}),
            Side(f"{THEIRS}, cached", "sbert:text_training", {"mini_batch_size": 32}),
        ]
        if size == sizes[0]:  # in larger ones it would need more than most machines have
            sides.append(Side(THEIRS, "sbert:text_training"))
        for name, own in play(options, sides, work, rounds=1, fresh=True).items():
            records.append(
                {"row": "memory", "batch_size": size, "side": name, "turns": own.turns, "problem": own.problem}
            )
            if own.problem is not None:
                rows.append([f"{size:,}", name, own.problem, "", ""])
                continue
            (turn, *_), base = own.turns, own.facts["base"]
            per_pair = 1000 * turn["seconds"] / size
            rows.append([f"{size:,}", name, megabytes(turn["peak"] - base), megabytes(turn["peak"]), short(per_pair)])
    header = ["pairs a step", "side", "MB above the model's", "peak MB", "ms a pair"]
    return Report(
        f"**Memory against the size of a batch, short texts, the first step**\n\n{table(header, rows)}", records
    )


def start_up(options: Options) -> Report:
    """What a process costs before it does anything."""
    import os

    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    rounds = options.rounds or (1 if options.quick else 7)
    taken: dict[str, list[Turn]] = {name: [] for name in startup.COMMANDS}
    for number in range(rounds + 1):
        for name, code in startup.COMMANDS.items():
            turn = startup.run(code, options.text_model, environment)
            if number:  # the first one finds nothing in the system's file cache
                taken[name].append(turn)
    outcomes = {name: Outcome(turns=list(turns)) for name, turns in taken.items()}
    against = [
        Against("import finetuner", "import sentence_transformers"),
        Against(f"finetuner, {startup.ENCODE}", f"sentence-transformers, {startup.ENCODE}"),
    ]
    return describe("start-up", "Start-up, a process each", outcomes, against, unit="processes")


def floor(options: Options) -> Report:
    """How much of the machine's speed at multiplying matrices training on text comes to."""
    from benchmarks.speed.floor import of_model

    network = of_model(options.text_model)
    work = _text_work(options, options.size(64, 4), 5)
    sides = [
        Side(FLOAT, "ours:text_training", _EXACT),
        Side("products, float32", "floor:products", {"dtype": "float32"}),
        Side(HALF, "ours:text_training", _FAST, bfloat16=True),
        Side("products, bfloat16", "floor:products", {"dtype": "bfloat16"}, bfloat16=True),
    ]
    outcomes = play(options, sides, work, rounds=5)
    rows, records = [], []
    for name, products, target in ((FLOAT, "products, float32", 0.75), (HALF, "products, bfloat16", 0.6)):
        ours, theirs = outcomes[name], outcomes[products]
        if not ours.turns or not theirs.turns:
            rows.append([name, ours.problem or theirs.problem or "no turn", "", "", "", "", ""])
            continue
        rate = [network.useful_flops(turn["lengths"]) / turn["seconds"] for turn in ours.turns]
        layers, square = ([turn[kind] for turn in theirs.turns] for kind in ("layers", "square"))
        shares = {
            kind: spread([one / other for one, other in zip(rate, ceiling, strict=True)])
            for kind, ceiling in (("layers", layers), ("square", square))
        }
        tokens = sum(turn["tokens"] for turn in ours.turns)
        per_token = sum(network.useful_flops(turn["lengths"]) for turn in ours.turns) / tokens
        gigaflops = [short(spread(values).median / 1e9) for values in (rate, layers, square)]
        rows.append([name, short(per_token / 1e6), *gigaflops, *map(with_range, shares.values()), f"≥ {target}"])
        records.append(
            {"row": "floor", "side": name, "useful": rate, "layers": layers, "square": square, "target": target}
        )
    header = ["", "MFLOP a token", "useful GFLOP/s", "products of its layers", "square products"]
    header += ["share of its layers' (range)", "share of square ones'", "target"]
    rows = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return Report(
        f"**The machine's floor: text training, {work.batch_size} pairs a step**\n\n{table(header, rows)}", records
    )


def quality(options: Options) -> Report:
    """The loss curve and what is found afterwards, of both, over three seeds."""
    steps, batch_size = options.size(60, 3), options.size(32, 4)
    held_out = options.size(500, 16)
    work = _brief_work(options, batch_size, steps, held_out)
    seeds = (0,) if options.quick else (0, 1, 2)
    measured: dict[str, list[Turn]] = {OURS: [], THEIRS: []}
    problems: list[str] = []
    for seed in seeds:
        told = {"seed": seed, "learning_rate": 5e-5}
        sides = [Side(OURS, "ours:quality", told), Side(THEIRS, "sbert:quality", told)]
        for name, own in play(_once(options), sides, work, rounds=1, fresh=True).items():
            measured[name] += own.turns
            problems += [] if own.problem is None else [f"{name}: {own.problem}"]
    rows = []
    for name, turns in measured.items():
        if not turns:
            continue
        third = max(1, steps // 3)
        parts = [[_mean(turn["losses"][at : at + third]) for turn in turns] for at in range(0, steps, third)][:3]
        found = [[turn[metric] for turn in turns] for metric in ("recall@1", "ndcg@10")]
        rows.append([name, *(with_range(spread(values)) for values in (*parts, *found))])
    thirds = [f"loss, {which} third" for which in ("first", "second", "last")]
    title = (
        f"Quality: {steps} steps of {batch_size} pairs in float32, {len(seeds)} seeds, median (range); each of "
        f"{held_out} anchors never trained on looks for its positive among as many"
    )
    text = f"**{title}**\n\n{table(['side', *thirds, 'recall@1', 'nDCG@10'], rows)}"
    records = [{"row": "quality", "side": name, "turns": turns} for name, turns in measured.items()]
    return Report("\n\n".join([text, *problems]), records)


ROWS: Mapping[str, Callable[[Options], Report]] = {
    "text-train": text_train,
    "text-train-equal": text_train_equal,
    "encode": encode,
    "image-train": image_train,
    "frozen-text": frozen_text,
    "frozen-image": frozen_image,
    "chunked": chunked,
    "memory": memory,
    "start-up": start_up,
    "floor": floor,
    "quality": quality,
}


def _text_sides() -> list[Side]:
    return [
        Side(FLOAT, "ours:text_training", _EXACT),
        Side(THEIRS, "sbert:text_training"),
        # A loss with a cache embeds mini-batches, and pads each to its own longest text only.
        Side(f"{THEIRS}, cached in fours", "sbert:text_training", {"mini_batch_size": 4}),
        Side(HALF, "ours:text_training", _FAST, bfloat16=True),
        Side(f"{THEIRS}, bf16", "sbert:text_training", {"bf16": True}, bfloat16=True),
        Side(
            f"{THEIRS}, cached in fours, bf16",
            "sbert:text_training",
            {"mini_batch_size": 4, "bf16": True},
            bfloat16=True,
        ),
    ]


def _steps(options: Options, rounds: int) -> int:
    """One to warm up, those that count, and one more, since training that is over waits for no turn."""
    return 2 + (options.rounds or (1 if options.quick else rounds))


def _work(options: Options, batch_size: int, steps: int, **given: Any) -> Work:
    return Work(
        **{
            "model": options.text_model,
            "batch_size": batch_size,
            "steps": steps,
            "folder": str(options.scratch),
            "device": options.device,
            "threads": options.threads,
            "pairs": [],
            "held_out": [],
            "pictures": [],
            "labels": [],
            **given,
        }
    )


def _with(work: Work, **given: Any) -> Work:
    return Work(**{**vars(work), **given})


def _text_work(options: Options, batch_size: int, rounds: int) -> Work:
    steps = _steps(options, rounds)
    return _work(options, batch_size, steps, pairs=_pairs(options, batch_size * steps))


def _brief_work(options: Options, batch_size: int, steps: int, held_out: int = 0) -> Work:
    count = batch_size * steps + held_out
    rows = pairs.brief(count, 16) if options.pairs is None else _pairs(options, count)
    return _work(options, batch_size, steps, pairs=rows[: batch_size * steps], held_out=rows[batch_size * steps :])


def _image_work(options: Options, batch_size: int, steps: int) -> Work:
    folder = options.scratch / f"pictures-{batch_size * steps}"
    folder.mkdir(exist_ok=True)
    paths, labels = pictures.write(folder, batch_size * steps)
    return _work(options, batch_size, steps, model=IMAGE_MODEL, pictures=paths, labels=labels)


def _pairs(options: Options, count: int) -> list[Pair]:
    if options.pairs is None:
        return pairs.mine(count)
    if len(options.pairs) < count:
        raise ValueError(f"{count:,} pairs are wanted, and the file given has {len(options.pairs):,}.")
    return options.pairs[:count]


def _once(options: Options) -> Options:
    return Options(**{**vars(options), "rounds": 1})


def _turns_of(outcomes: Mapping[str, Outcome], beginning: str) -> list[Turn]:
    return next((own.turns for name, own in outcomes.items() if name.startswith(beginning) and own.turns), [])


def _rates(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Real tokens in a second: how many there are in a step, only Finetuner's side tells."""
    told = [turn["tokens"] for turn in _turns_of(outcomes, OURS)]
    return {
        name: short(sum(told) / sum(turn["seconds"] for turn in own.turns))
        for name, own in outcomes.items()
        if len(own.turns) == len(told) > 0
    }


def _lengths(lengths: Sequence[int]) -> str:
    middle, high = lengths[len(lengths) // 2], lengths[int(0.95 * len(lengths))]
    return f"tokens of a text: median {middle}, mean {_mean(lengths):.0f}, p95 {high}, max {lengths[-1]}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
