"""The settings of `finetuner fit` in a file: TOML or JSON by hand, or the `run.json` of a run to be repeated."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from finetuner_core.errors import OptionError
from finetuner_core.untrusted import LARGEST_JSON, read_json
from finetuner_core.values import near, quote

if TYPE_CHECKING:
    from finetuner_core.data.sources import TrainingSet

ALIASES = {"train": "train_data", "eval": "eval_data"}
"""What the command line calls a setting that `fit` calls otherwise."""

# Options belong to what they are of: another one of it, on the command line, has none of those in the file.
_OPTIONS_OF = {"loss_options": "loss", "pooling_options": "pooling", "model_options": "model"}


def read_config(file: Path) -> dict[str, Any]:
    """The arguments of `fit` that a file gives.

    Args:
        file: `.toml` or `.json`. Its keys are the names of the arguments; `train` and `eval` are short for `train_data`
            and `eval_data`, where a table (`data`, `weight`, `loss`, ...) stands for a `TrainingSet`.

    Raises:
        OptionError: if it cannot be read, or if a key or a value is none of `fit`.
    """
    import finetuner_core

    allowed = get_type_hints(finetuner_core.fit)
    del allowed["return"]
    settings: dict[str, Any] = {}
    for key, value in _read(file).items():
        name = ALIASES.get(key, key)
        if name not in allowed:
            raise OptionError(
                f"{file}: there is no setting {quote(key)}.{near(key, [*ALIASES, *allowed])}\n"
                "Settings have the names of the arguments of finetuner.fit, such as model, train, eval, out, epochs."
            )
        if name in settings:
            raise OptionError(f"{file}: {key} and {_other(key)} are the same setting. Leave one of them out.")
        if name in ALIASES.values():
            settings[name] = _data(file, key, value)
        elif not _fits(value, allowed[name]):
            raise OptionError(f"{file}: {key} is {_shown(value)}; it must be {_described(allowed[name])}.")
        else:
            settings[name] = value
    return settings


def merge(config: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fit`: those of a file, and over them what was given on the command line.

    Args:
        config: what `read_config` gave.
        typed: what was given on the command line, and nothing else.
    """
    merged = {**config, **typed}
    for name, value in typed.items():
        if isinstance(value, Mapping):  # --loss-option margin=0.3 says nothing of the other options
            merged[name] = {**(config.get(name) or {}), **value}
    for options, owner in _OPTIONS_OF.items():
        if owner in typed and typed[owner] != config.get(owner) and options in merged:
            merged[options] = typed.get(options, {})
    if "train_data" not in typed:
        merged["train_data"] = _overridden(config.get("train_data"), typed)
    return merged


def _overridden(data: Any, typed: Mapping[str, Any]) -> Any:
    """Data sets of the file without what they say themselves and the command line says for all of them."""
    from finetuner_core.data.sources import TrainingSet

    if isinstance(data, list):
        return [_overridden(one, typed) for one in data]
    if isinstance(data, TrainingSet):
        if "loss" in typed:
            data = replace(data, loss=None, loss_options=None)
        if "columns" in typed and data.columns is not None:
            data = replace(data, columns={**data.columns, **typed["columns"]})
    return data


def _read(file: Path) -> dict[str, Any]:
    """What the file holds, of a run its settings."""
    readers: dict[str, Callable[[Path], Any]] = {".toml": _read_toml, ".json": lambda own: read_json(own, strict=True)}
    if os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        runs = [own for own in (file / "run" / "run.json", file / "run.json") if own.is_file()]
        raise OptionError(
            f"{file} is a folder; --config takes a file: {runs[0] if runs else 'FILE.toml or FILE.json'}."
        )
    if file.suffix.lower() not in readers:
        raise OptionError(f"{quote(file)} must end in .toml or .json, which says how it is to be read.")
    try:
        content = readers[file.suffix.lower()](file)
    except OSError as error:
        raise OptionError(f"{quote(file)} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise OptionError(f"{file} is no {file.suffix[1:].upper()} that can be read: {error}.") from None
    if not isinstance(content, dict):
        raise OptionError(f"{file} holds {_shown(content)}; it must hold settings by their names.")
    return _of_run(file, content) if "format_version" in content else content


def _read_toml(file: Path) -> Any:
    try:
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        raise OptionError(
            f"{file} is TOML, which Python reads from 3.11 on; this is {sys.version.partition(' ')[0]}.\n"
            "Install a reader: pip install tomli. Or write the same settings as JSON."
        ) from None
    size = file.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"it has {size:,} bytes, and no such file has more than {LARGEST_JSON:,}")
    try:
        return toml.loads(file.read_text("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _of_run(file: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    from finetuner_core.training.run import VERSION, in_memory

    version, settings = manifest["format_version"], manifest.get("settings")
    if version != VERSION:
        raise OptionError(
            f"{file} has format version {_shown(version)}; this Finetuner reads {VERSION}.\n"
            "If it was written by a newer one: pip install --upgrade finetuner-core"
        )
    if not isinstance(settings, dict):
        raise OptionError(f"{file} is the run.json of a run, and holds no settings. It is damaged.")
    for name, value in settings.items():
        if in_memory(value):
            raise OptionError(
                f"{file}: the run was begun in Python with a {name} in memory, which no file can repeat.\n"
                "Repeat it in Python, or write the settings into a file with a name or a path in its place."
            )
    # Each process is told for itself how long it may take, and whether other versions will do.
    return {name: value for name, value in settings.items() if name not in ("max_time", "allow_changed_versions")}


def _other(key: str) -> str:
    return next(other for name, own in ALIASES.items() for other in (name, own) if other != key and key in (name, own))


def _data(file: Path, key: str, value: Any) -> Any:
    """Data as `fit` takes it: a file, or a table, or a list of them."""
    if isinstance(value, list) and value and key in ("train", "train_data"):
        return [_one_set(file, key, one) for one in value]
    if isinstance(value, dict) and key in ("train", "train_data"):
        return _one_set(file, key, value)
    if isinstance(value, str) or (value is None and key in ("eval", "eval_data")):
        return value
    also = ", a table such as {data = FILE, weight = 2}, or a list of these" if key.startswith("train") else ""
    raise OptionError(f"{file}: {key} is {_shown(value)}; it must be a file or folder, as text{also}.")


def _one_set(file: Path, key: str, value: Any) -> str | TrainingSet:
    from finetuner_core.data.sources import TrainingSet

    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise OptionError(
            f"{file}: {key} holds {_shown(value)}; each must be a file or folder, as text, or a table with data = FILE."
        )
    allowed = get_type_hints(TrainingSet) | {"data": str}
    for name, own in value.items():
        if name not in allowed:
            known = ", ".join(field.name for field in fields(TrainingSet))
            raise OptionError(f"{file}: {key} has no {quote(name)}.{near(name, allowed)}\nA data set has {known}.")
        if not _fits(own, allowed[name]):
            raise OptionError(f"{file}: {name} in {key} is {_shown(own)}; it must be {_described(allowed[name])}.")
    if "data" not in value:
        raise OptionError(f"{file}: {key} holds {_shown(value)} without data = FILE, which says where its rows are.")
    return TrainingSet(**value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value that TOML or JSON holds is of a type, as `fit` means it."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return value in get_args(hint) and isinstance(value, str)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_fits(own, get_args(hint)[1]) for own in value.values())
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_fits(own, get_args(hint)[0]) for own in value)
    if hint is object:  # an option of a plugin, which knows its type
        return isinstance(value, str | bool | int | float | list | NoneType)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _described(hint: Any) -> str:
    """What is allowed, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        described = dict.fromkeys(_described(one) for one in inner if one in _NAMES or get_origin(one) is not None)
        return " or ".join(described)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is not None and issubclass(origin, Mapping):
        return "a table of names and values" + (" that are text" if inner[1] is str else "")
    if origin is not None and issubclass(origin, Sequence):
        return "a list of whole numbers" if inner[0] is int else "a list of names"
    return _NAMES[hint]


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value) if isinstance(value, int | float) else quote(value)
