"""What a sentence-transformers repository declares beside its network: the pooling, and how texts are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from finetuner_hf.hub import read_json

# A Transformer module's settings stand in the first of these that is there.
_SETTINGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

# A pooling module says its mode by one flag of each, or in one word.
_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Declaration:
    """What is declared.

    Args:
        pooling: `mean`, `cls` or `max`; `None` where it is none of them.
        what: in words, for a person, what is declared.
        max_length: how many tokens of a text are read.
        lower_case: whether texts are put in lower case.
    """

    pooling: str | None
    what: str
    max_length: int | None = None
    lower_case: bool = False


def read_declaration(name: str) -> Declaration:
    """What the repository or folder of that name declares."""
    modules = read_json(name, "modules.json")
    if not isinstance(modules, list) or not modules:
        return Declaration(None, "no modules.json")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    path = f"{modules[0]['path']}/" if modules[0].get("path") else ""
    found = (read_json(name, f"{path}sentence_{kind}_config.json") for kind in _SETTINGS)
    settings = next((content for content in found if isinstance(content, dict)), {})
    length = settings.get("max_seq_length")
    pooling, what = _pooling(name, kinds, modules)
    return Declaration(
        pooling, what, length if isinstance(length, int) else None, lower_case=settings.get("do_lower_case") is True
    )


def _pooling(name: str, kinds: list[str], modules: list[dict[str, object]]) -> tuple[str | None, str]:
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Normalize" for kind in kinds[2:]):
        return None, f"the modules {', '.join(kinds)}"
    content = read_json(name, f"{modules[1].get('path')}/config.json")
    settings = content if isinstance(content, dict) else {}
    modes = [mode for mode, value in settings.items() if mode.startswith("pooling_mode_") and value is True]
    if isinstance(word := settings.get("pooling_mode"), str):
        modes = [word]
    if len(modes) != 1:
        return None, f"{len(modes)} poolings at once"
    mode = _FLAGS.get(modes[0], modes[0])
    return (mode if mode in _FLAGS.values() else None), f"the pooling {mode}"


def write_declaration(folder: Path, pooling: str, dim: int, max_length: int) -> None:
    """Writes the files by which sentence-transformers, and `read_declaration`, know the pooling."""
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, path, kind) in enumerate(kinds)
    ]
    flags = {flag: mode == pooling for flag, mode in _FLAGS.items()}
    (folder / "1_Pooling").mkdir()
    for file, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", {"word_embedding_dimension": dim} | flags),
        ("sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False}),
    ):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
