"""What was understood of data, and what is wrong with it, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.findings import Problem, find_eval_problems, find_problems
from finetuner_core.data.images import read_image
from finetuner_core.data.leakage import Leakage, find_leakage
from finetuner_core.data.sources import Part, Sources
from finetuner_core.values import Side

# How many items are measured: their lengths need no more to be known than this.
_LENGTHS = 100_000
_TOKENS = 2_000
_SIZES = 200
_EXAMPLES = 3
_BINS = 16

TokenCounter = Callable[[Sequence[object], Side | None], tuple[list[int], int]]
"""Given texts and what they are for: how many tokens each has, and how many of the texts are cut."""


@dataclass(frozen=True)
class Lengths:
    """How long things are.

    Args:
        unit: characters, tokens or pixels (of the longer side).
        shortest: of all that were measured.
        median: as many are shorter as are longer.
        most: 95 of 100 are not longer.
        longest: of all that were measured.
        counts: how many lie between each two of the edges.
        edges: from the shortest up to the 99th percentile; the last count holds all that are longer.
        measured: how many were measured, spread evenly over the column.
        cut: how many of them have more tokens than the model reads.
    """

    unit: str
    shortest: int
    median: int
    most: int
    longest: int
    counts: list[int]
    edges: list[int]
    measured: int
    cut: int | None = None

    @classmethod
    def of(cls, lengths: Iterable[int], unit: str, cut: int | None = None) -> Lengths:
        """From the length of each."""
        values = np.fromiter(lengths, np.int64)
        median, most, nearly = (int(np.percentile(values, share, method="lower")) for share in (50, 95, 99))
        low, high = int(values.min()), int(values.max())
        edges = np.unique(np.linspace(low, max(nearly, low) + 1, _BINS + 1).astype(np.int64))
        counts, _ = np.histogram(np.minimum(values, nearly), edges)
        return cls(unit, low, median, most, high, counts.tolist(), edges.tolist(), len(values), cut)


@dataclass(frozen=True)
class ColumnReport:
    """What is in a column.

    Args:
        header: as in the file.
        role: what it is used as.
        modality: `text`, `image` or `vector`.
        different: how many different items it holds.
        lengths: of texts in characters, of images in pixels; of vectors nothing.
        tokens: of texts, as the model reads them; nothing without a model.
        width: of vectors.
    """

    header: str
    role: str
    modality: str
    different: int
    lengths: Lengths | None = None
    tokens: Lengths | None = None
    width: int | None = None


@dataclass(frozen=True)
class ClassReport:
    """How items are spread over labels.

    Args:
        number: how many labels there are.
        largest: the label with the most items, and how many.
        smallest: the label with the fewest items, and how many.
        alone: how many labels stand on one item.
    """

    number: int
    largest: tuple[str, int]
    smallest: tuple[str, int]
    alone: int


@dataclass(frozen=True)
class PartReport:
    """One data set.

    Args:
        name: what it is called.
        source: where it came from.
        summary: what it is, in a few words.
        form: `labelled`, `pairs` or `scored`.
        rows: for training.
        columns: those that are used.
        unused: the headers of the others.
        skipped: how many rows were left out because they cannot be used.
        held_out: what it is measured on, in a few words; nothing where evaluation data was given for all.
        how: how that was come by.
        classes: of labelled data.
        scores: of scored data the least, the mean and the highest score.
        examples: some rows.
        problems: what is wrong or strange.
    """

    name: str
    source: str
    summary: str
    form: str
    rows: int
    columns: list[ColumnReport]
    unused: list[str]
    skipped: int
    held_out: str | None
    how: str
    classes: ClassReport | None
    scores: tuple[float, float, float] | None
    examples: list[dict[str, object]]
    problems: list[Problem]


@dataclass(frozen=True)
class Report:
    """All of the data.

    Args:
        parts: the data sets.
        evaluation: what was given for evaluation, in a few words.
        leakage: by name of what is measured on, how much of that is in the training data.
        problems: what is wrong with what is measured on.
    """

    parts: list[PartReport]
    evaluation: str | None
    leakage: dict[str, Leakage]
    problems: list[Problem]

    @property
    def fails(self) -> bool:
        """Whether training would fail."""
        return any(problem.kind == "error" for part in self.parts for problem in part.problems) or any(
            problem.kind == "error" for problem in self.problems
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "fails": self.fails}


def make_report(sources: Sources, *, batch_size: int = 64, count_tokens: TokenCounter | None = None) -> Report:
    """Looks at data as it would be trained on.

    Args:
        sources: what `read_sources` read.
        batch_size: how many items, or rows, a step has.
        count_tokens: how a model reads texts.
    """
    leakage, problems = _evaluation(sources)
    return Report(
        [_part(part, batch_size, count_tokens) for part in sources.parts],
        None if sources.given is None else f"{sources.given.summary()}, from {sources.given.source}",
        leakage,
        problems,
    )


def describe(sources: Sources) -> list[tuple[str, str]]:
    """The same in a few lines, for the beginning of a training run: each a word and what it says."""
    lines = []
    leakage, problems = _evaluation(sources)
    for part in sources.parts:
        data = part.train
        lines.append(("Data", f"{data.summary()}, from {data.source}{_as_roles(part)}"))
        if part.eval is not None:
            how = f" ({part.how})" if part.how else ""
            also = _documents(leakage[part.name])
            lines.append(("Held out", f"{part.eval.summary()}{how}{also}, from {part.eval.source}"))
        problems = [*problems, *find_problems(data, 1)]
    if sources.given is not None:
        lines.append(("Held out", f"{sources.given.summary()}, from {sources.given.source}"))
    if sources.skipped:
        lines.append(("Skipped", f"{sources.skipped:,} row{'s' * (sources.skipped > 1)} that cannot be used"))
    return [*lines, *(("Note", _sentence(problem.text)) for problem in problems if problem.kind == "warning")]


def _evaluation(sources: Sources) -> tuple[dict[str, Leakage], list[Problem]]:
    train = [part.train for part in sources.parts]
    leakage = {name: find_leakage(train, data) for name, data in sources.evals.items()}
    problems = [problem for data in sources.evals.values() for problem in find_eval_problems(data)]
    return leakage, problems + [Problem("warning", str(found)) for found in leakage.values() if str(found)]


def _part(part: Part, batch_size: int, count_tokens: TokenCounter | None) -> PartReport:
    data = part.train
    role_of = {header: role for role, headers in part.roles.items() for header in headers}
    columns = []
    for place, (column, side) in enumerate(zip(data.columns, data.sides, strict=True)):
        # What stood in a list has the header of the list, with its place behind it.
        role = role_of.get(column.name) or role_of.get(column.name.rpartition("[")[0]) or _default_role(data, place)
        columns.append(_column(column, role, side, count_tokens))
    scores = None
    if data.scores is not None:
        scores = (float(data.scores.min()), float(data.scores.mean()), float(data.scores.max()))
    return PartReport(
        part.name,
        data.source,
        data.summary(),
        data.form,
        len(data),
        columns,
        list(part.unused),
        part.skipped,
        None if part.eval is None else part.eval.summary(),
        part.how,
        None if data.labels is None else _classes(data),
        scores,
        [_example(data, row) for row in _spread(len(data), _EXAMPLES).tolist()],
        find_problems(data, batch_size),
    )


def _default_role(data: Dataset, place: int) -> str:
    if data.form == "labelled":
        return data.columns[place].name
    return (
        ("anchor", "positive", "negative")[min(place, 2)]
        if data.form == "pairs"
        else ("anchor", "candidate")[min(place, 1)]
    )


def _column(column: Column, role: str, side: Side | None, count_tokens: TokenCounter | None) -> ColumnReport:
    different = int(column.identities.max()) + 1
    lengths = tokens = width = None
    if column.modality == "text":
        lengths = Lengths.of((len(str(text)) for text in column.take(_spread(len(column), _LENGTHS))), "characters")
        if count_tokens is not None:
            counts, cut = count_tokens(column.take(_spread(len(column), _TOKENS)), side)
            tokens = Lengths.of(counts, "tokens", cut)
    elif column.modality == "image":
        images = column.take(_spread(len(column), _SIZES))
        lengths = Lengths.of((max(read_image(image).size) for image in images), "pixels")
    else:
        width = len(column.take([0])[0])  # type: ignore[arg-type]
    return ColumnReport(column.name, role, column.modality, different, lengths, tokens, width)


def _classes(data: Dataset) -> ClassReport:
    sizes = np.bincount(data.classes)

    def named(label: int) -> tuple[str, int]:
        return str((data.labels or ())[int(np.argmax(data.classes == label))]), int(sizes[label])

    return ClassReport(len(sizes), named(int(sizes.argmax())), named(int(sizes.argmin())), int((sizes == 1).sum()))


def _example(data: Dataset, row: int) -> dict[str, object]:
    shown: dict[str, object] = {column.name: column.shown(row) for column in data.columns}
    if data.labels is not None:
        shown["label"] = str(data.labels[row])
    if data.scores is not None:
        shown["scores"] = data.scores[row].tolist()
    return shown


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _as_roles(part: Part) -> str:
    """Which header is used as what, where the two differ."""
    renamed = [f"{header} as {role}" for role, headers in part.roles.items() for header in headers if header != role]
    return f" ({', '.join(renamed)})" if renamed else ""


def _documents(leakage: Leakage) -> str:
    if not leakage.documents:
        return ""
    return f", {leakage.documents:,} of their {leakage.of_documents:,} documents also in training"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
