"""What a run follows from: its settings, its data, the versions of what computes, and the machine."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np
import torch

from finetuner_core.catalogue.names import is_path
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.data.dataset import Cells, Column, Dataset
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.sources import Sources, TrainingSet
from finetuner_core.encoding.fingerprint import of_items


def settings_as_json(arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments of `fit` as JSON holds them. Files and folders are given by their whole path.

    What is in memory cannot be written down: in its place stands `{"in_memory": its type}`.
    """
    settings = {name: _as_json(value) for name, value in arguments.items()}
    for name in ("train_data", "eval_data"):
        settings[name] = _whole_path(settings[name])
    for name in ("cache", "out"):
        value = settings[name]
        settings[name] = str(Path(value).expanduser().absolute()) if isinstance(value, str) else None
    for name in ("model", "text_model"):
        value = settings[name]
        if isinstance(value, str) and is_path(value):
            settings[name] = str(Path(value).expanduser().absolute())
    return settings


def _as_json(value: object) -> object:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if isinstance(value, TrainingSet):
        return {name: _as_json(own) for name, own in vars(value).items() if own is not None}
    if isinstance(value, Mapping):
        return {str(name): _as_json(own) for name, own in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes) and not any(isinstance(v, Mapping) for v in value):
        return [_as_json(own) for own in value]
    return {"in_memory": type(value).__name__}


def _whole_path(value: object) -> object:
    if isinstance(value, str):
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value
    if isinstance(value, list):
        return [_whole_path(own) for own in value]
    if isinstance(value, dict) and "data" in value:
        return value | {"data": _whole_path(value["data"])}
    return value


def of_data(data: Sources) -> dict[str, object]:
    """For each part of the data its name, its size and SHA-256 over all that training and evaluation see of it."""
    sets: dict[str, Dataset | SearchSet] = {f"training on {part.name}": part.train for part in data.parts}
    sets |= {f"evaluation on {name}": own for name, own in data.evals.items()}
    return {name: f"{own.summary()}, sha256 {_of_set(own)[:32]}" for name, own in sets.items()}


def _of_set(data: Dataset | SearchSet) -> str:
    columns: Sequence[Column]
    if isinstance(data, SearchSet):
        columns, arrays = (data.queries, data.corpus), [*data.judgements]
        ids = [name for own in (data.query_ids, data.corpus_ids) if own is not None for name in _all(own)]
    else:
        columns, ids = data.columns, []
        arrays = [data.classes] if data.labels is not None else [] if data.scores is None else [data.scores]
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.modality} {of_items(column)}".encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    for name in ids:
        digest.update(f"{len(str(name))} {name}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _all(ids: Sequence[str] | Cells) -> Sequence[object]:
    return ids.take(range(len(ids))) if isinstance(ids, Cells) else ids


def versions(namespaces: Iterable[str]) -> dict[str, object]:
    """Versions of Python, the core, and what computes: the plugins of some namespaces, and what they ask for."""
    own = {plugin.distribution for plugin in catalogue().plugins if plugin.namespace in {*namespaces}}
    names = {"torch", "numpy", "finetuner-core"}
    for name in own - {"finetuner-core"}:
        names.add(name)
        try:
            needed = [each for each in requires(name) or () if "extra ==" not in each]
        except PackageNotFoundError:
            continue
        names.update(re.split(r"[^\w.-]", each)[0] for each in needed)
    found: dict[str, object] = {"python": platform.python_version()}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, object]:
    """What of a machine decides how numbers are rounded."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
