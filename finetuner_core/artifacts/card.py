"""A saved model's card: README.md, with the metadata that the Hugging Face Hub reads, for people and for search."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from finetuner_core.catalogue.names import is_path
from finetuner_core.errors import FinetunerError
from finetuner_core.untrusted import read_json
from finetuner_core.values import BackboneInfo, Modality, Side

if TYPE_CHECKING:
    from finetuner_core.interfaces import ForeignUse

CARD_FILE = "README.md"
TRAINING_FILE = "training.json"
PLACE = "path/to/this-model"
"""What stands in a card for the model where its name on the Hub will do as well, which a push puts there."""

FOLDER = "./this-model"
"""And where it has to be the folder."""

_HUB = "https://huggingface.co/"
_SAMPLES: Mapping[Modality, str] = {
    "text": '["a text", "another"]',
    "image": '["photo.jpg", "another.jpg"]',
    "vector": "vectors",
}
_LARGEST = 4 * 1024 * 1024  # bytes of a card or record that is kept


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Args:
        info: the model's row, that of both backbones where there are two.
        output_dim: width of the embeddings.
        towers: each backbone's row, pooling, whether a projection follows, and how its folder opens elsewhere.
        adapter: whether the folder holds LoRA's matrices alone.
    """

    info: BackboneInfo
    output_dim: int
    towers: Sequence[tuple[Side | None, BackboneInfo, str, bool, ForeignUse | None]]
    adapter: bool = False


def read_papers(folder: Path) -> dict[str, str]:
    """What a saved model says of itself for people, and what its training left, as texts by file name."""
    papers = {}
    for name in (CARD_FILE, TRAINING_FILE):
        file = folder / name
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _LARGEST:
            papers[name] = file.read_text("utf-8", errors="replace")
    return papers


def write_papers(folder: Path, papers: Mapping[str, str], subject: Subject) -> None:
    """Writes a model's card and record into its new folder.

    Args:
        folder: where a training that has just ended may have left its record.
        papers: what was there when the model was opened; they hold where nothing has trained it since.
        subject: what the card is about, where it is written anew.
    """
    record = folder / TRAINING_FILE
    if not record.exists():
        for name, text in papers.items():
            (folder / name).write_text(text, "utf-8")
        if CARD_FILE in papers:
            return
    (folder / CARD_FILE).write_text(render_card(subject, _read_record(record)), "utf-8")


def _read_record(file: Path) -> Mapping[str, Any]:
    try:
        record = read_json(file) if file.exists() else {}
    except (FinetunerError, OSError, ValueError):
        record = {}
    return record if isinstance(record, dict) else {}


def render_card(subject: Subject, record: Mapping[str, Any]) -> str:
    """The card.

    Args:
        subject: what it is about.
        record: what `training.json` holds, empty where nothing trained the model.
    """
    parts = [
        f"---\n{_yaml(_metadata(subject, record))}---",
        "# " + " + ".join(_name(info) for _, info, *_ in subject.towers) + (", fine-tuned" if record else ""),
        _what(subject),
        *_metrics(record),
        *_data(record),
        *_usage(subject),
        f"## Versions\n\n{_versions(subject)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(subject: Subject, record: Mapping[str, Any]) -> dict[str, object]:
    uses = [use for *_, use in subject.towers if use is not None]
    one = uses[0] if len(subject.towers) == 1 and uses and not subject.adapter else None
    bases = dict.fromkeys(b for _, info, *_ in subject.towers if (b := info.source.removeprefix(_HUB)) != info.source)
    kinds = {"text-to-text": "sentence-similarity", "image-to-image": "image-feature-extraction"}
    task = kinds.get(subject.info.task, "zero-shot-image-classification" if "image" in subject.info.task else None)
    metadata: dict[str, object] = {
        "library_name": one.library if one else "finetuner",
        "pipeline_tag": one.pipeline_tag if one else task,
        "tags": list(dict.fromkeys(["finetuner", *(one.tags if one else ()), subject.info.task, "embeddings"])),
        "base_model": [*bases],
    }
    evaluations = record.get("evaluation", [])
    if evaluations:
        metadata["metrics"] = list(dict.fromkeys(name for each in evaluations for name in each.get("after", {})))
        metadata["model-index"] = [
            {"name": _name(subject.info), "results": [_result(subject.info.task, each) for each in evaluations]}
        ]
    return {key: value for key, value in metadata.items() if value}


def _result(task: str, evaluation: Mapping[str, Any]) -> dict[str, object]:
    """One entry of the Hub's model index."""
    kind = "sentence-similarity" if task == "text-to-text" else "feature-extraction"
    after = evaluation.get("after", {})
    return {
        "task": {"type": kind, "name": "Retrieval"},
        "dataset": {"type": "private", "name": str(evaluation.get("name", "held-out data"))},
        "metrics": [{"type": name, "name": name, "value": round(value, 4)} for name, value in after.items()],
    }


def _name(info: BackboneInfo) -> str:
    """The backbone's name, of a folder the last part alone: where it lay on a person's disk is nobody's business."""
    return Path(info.name).name if is_path(info.name) else info.name


def _what(subject: Subject) -> str:
    made = {
        "text": "texts",
        "image": "images",
        "vector": "vectors",
    }
    lines = [
        f"An embedding model of {' and '.join(dict.fromkeys(made[it] for it in subject.info.modalities))}, made with "
        f"Finetuner. Its vectors have {subject.output_dim:,} numbers and length 1; the inner product of two says how "
        "alike they are.",
        "",
    ]
    for side, info, pooling, projected, _ in subject.towers:
        what = {None: "", "query": "What asks: ", "document": "What is found: "}[side]
        licence = f", licence of its weights: {info.licence}" if info.licence else ""
        link = f"[{_name(info)}]({info.source})" if info.source.startswith(_HUB) else _name(info)
        projection = f", a projection to {subject.output_dim:,}" if projected else ""
        lines.append(f"* {what}{link} ({info.architecture}{licence}), pooling {pooling}{projection}")
    if subject.adapter:
        lines += ["", "The folder holds LoRA's matrices alone; the backbone that they belong to is opened beside them."]
    return "\n".join(lines)


def _metrics(record: Mapping[str, Any]) -> Iterator[str]:
    for number, each in enumerate(record.get("evaluation", [])):
        title = "## What it gained\n\n" if number == 0 else ""
        intervals = each.get("intervals", {})
        before, after = intervals.get("before", {}), intervals.get("after", {})
        rows = [
            (name, _number(each["before"].get(name), before.get(name)), _number(value, after.get(name)))
            for name, value in each["after"].items()
        ]
        in_brackets = ", with 95% intervals" if before or after else ""
        table = tabulate(rows, ("metric", "before", "after"), "github", disable_numparse=True)
        yield f"{title}On {each.get('name', 'held-out data')} ({each.get('data', '')}){in_brackets}:\n\n{table}"


def _number(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _data(record: Mapping[str, Any]) -> Iterator[str]:
    if data := record.get("data"):
        rows = [f"* {own.get('train', '')}, loss {own.get('loss', {}).get('name', '')}" for own in data]
        yield (
            "## What it was trained on\n\n"
            + "\n".join(rows)
            + f"\n\nSettings are in `{TRAINING_FILE}`. No example of the "
            "data is in this folder."
        )


def _usage(subject: Subject) -> Iterator[str]:
    modality = subject.info.modalities[-1]
    side = ', side="document"' if len(subject.towers) > 1 or len(subject.info.modalities) > 1 else ""
    yield (
        "## How to use it\n\n```python\nimport finetuner\n\n"
        f"# From the Hub: hf download {PLACE} --local-dir this-model\n"
        f'model = finetuner.load("{FOLDER}")\n'
        f"vectors = model.encode({_SAMPLES[modality]}{side})\n```"
    )
    for side_of, _, _, _, use in subject.towers:
        if use is not None and not subject.adapter:
            end = "" if side_of is None else f"/{side_of}"
            which = "" if side_of is None else f" ({'what asks' if side_of == 'query' else 'what is found'})"
            rest = f"\n\n{use.rest}" if use.rest else ""
            # On the Hub it is a folder of a repository, which has no name of its own.
            code = use.code.replace("{model}", f"{FOLDER}{end}" if end else PLACE).replace("{folder}", f"{FOLDER}{end}")
            yield f"Without Finetuner, in {use.library}{which}:\n\n```python\n{code}\n```{rest}"


def _versions(subject: Subject) -> str:
    names = ["finetuner-core", *(f"finetuner-{info.namespace}" for _, info, *_ in subject.towers), "torch"]
    libraries = [use.library for *_, use in subject.towers if use is not None]
    found = [f"Python {platform.python_version()}"]
    for name in dict.fromkeys([*names, *libraries]):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _yaml(value: object, indent: int = 0) -> str:
    """A mapping as YAML; each text in it is written as JSON, which YAML reads as it stands."""
    assert isinstance(value, dict)
    return "".join(f"{' ' * indent}{key}:{_value(own, indent)}" for key, own in value.items())


def _value(value: object, indent: int) -> str:
    if isinstance(value, dict):
        return "\n" + _yaml(value, indent + 2)
    if isinstance(value, list):
        return "\n" + "".join(f"{' ' * indent}-{_item(own, indent)}" for own in value)
    return f" {json.dumps(value, ensure_ascii=False)}\n"


def _item(value: object, indent: int) -> str:
    # The first key of a mapping stands behind the dash.
    return f" {_yaml(value, indent + 2).lstrip()}" if isinstance(value, dict) else _value(value, indent)
