"""What a name means: a repository of the Hugging Face Hub, perhaps in the local cache, or a folder in its format."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
import transformers
from huggingface_hub import _CACHED_NO_EXIST, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import BackboneInfo, WeightsError
from finetuner_core.untrusted import read_json as read
from finetuner_core.values import near, quote
from finetuner_hf.families import families
from finetuner_hf.refusals import of_timm, why_not_opened
from finetuner_hf.rows import ROWS

# What transformers and its helpers raise where a repository is not there, not whole, or not what it says.
LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def find(name: str) -> BackboneInfo | None:
    """The row of a Hub id or a folder, `None` for a folder in another format.

    Raises:
        WeightsError: if it cannot be had, or is no model that can be opened as an embedding model.
    """
    listed = next((row for row in ROWS if row.name == name), None)
    if listed is not None:
        return listed
    if is_path(name):
        folder = Path(name).expanduser().resolve()
        if not _is_folder(folder):
            return None
        name = str(folder)
    config = read_config(name)
    source = name if is_path(name) else f"https://huggingface.co/{name}"
    for family in families():
        if family.accepts(config):
            return family.row(name, config, source)
    raise why_not_opened(name, config)


def cached_names(pattern: str) -> Iterable[str]:
    """Hub ids of the models in the local cache, and the listed ones."""
    try:
        cached = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
        repositories = {r.repo_id for r in cached if any(_is_folder(v.snapshot_path) for v in r.revisions)}
    except CacheNotFound:
        repositories = set()
    return sorted(fnmatch.filter({row.name for row in ROWS} | repositories, pattern))


def read_config(name: str) -> PreTrainedConfig:
    """The configuration of a Hub id or folder.

    Raises:
        WeightsError: if it is neither in the cache nor can be fetched, or is not one of transformers.
    """
    if not is_path(name) and Path(name).is_dir():
        raise WeightsError(
            f"{name} is the name of a model and of a folder here, which transformers would open in its place.\n"
            f"For the folder write ./{name}; for the model, run this in another folder."
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise why_not_loaded(name, error) from error
    if has_own_code(config) and not all(hasattr(transformers, kind) for kind in config.architectures or ()):
        # Its authors gave it the name of another model, whose network would take its weights and be wrong.
        raise own_code(name)
    _check_config(name, config)
    return config


def _check_config(name: str, config: PreTrainedConfig) -> None:
    """Refuses what transformers would do beside opening a network: fetch a kernel, which is code, or an adapter.

    Raises:
        WeightsError: if the repository asks for it.
    """
    for text in _kernels(config):
        raise WeightsError(
            f"{name} asks for the attention {quote(text)}, code of another repository, which finetuner-hf never runs.\n"
            "Take attn_implementation out of its config.json; the network computes the same without."
        )
    # Its settings can name modules to import.
    if _path(name, "adapter_config.json") is not None:
        raise WeightsError(
            f"{name} holds an adapter of PEFT (adapter_config.json) beside its network, which is not opened.\n"
            "Merge it with PEFT (merge_and_unload) and save the result, or take that file out."
        )


def _kernels(config: PreTrainedConfig) -> Iterator[str]:
    """Implementations of attention and the like that a configuration, or one in it, takes from a repository."""
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from _kernels(value)
        elif isinstance(value, str) and key.endswith("_implementation_internal") and not value.isidentifier():
            yield value


def has_own_code(config: PreTrainedConfig) -> bool:
    """Whether a repository brings Python code, which it may do without need."""
    return bool(getattr(config, "auto_map", None))


def own_code(name: str) -> WeightsError:
    """What to say of a repository that needs the code which it brings."""
    return WeightsError(
        f"{name} brings Python code of its own, which finetuner-hf never runs.\n"
        "Choose a model whose architecture transformers itself has, such as bert-base-cased."
    )


def read_json(name: str, file: str) -> dict[str, object] | list[dict[str, object]] | None:
    """A JSON file of a Hub id or folder, `None` where it has none, or none can be had.

    Raises:
        WeightsError: if it is no JSON.
    """
    path = _path(name, file)
    if path is None:
        return None
    try:
        content: dict[str, object] | list[dict[str, object]] = read(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name}: {file} cannot be read: {error}.\nMend the file, or fetch it anew.") from None
    return content


def read_weights(name: str, folder: str) -> dict[str, Tensor]:
    """The weights in a folder of a Hub id or folder. Nothing that is in them is executed.

    Raises:
        WeightsError: if it has none, or they cannot be read.
    """
    try:
        if (path := _path(name, f"{folder}/model.safetensors")) is not None:
            return load_file(path)
        if (path := _path(name, f"{folder}/pytorch_model.bin")) is not None:
            weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            return weights
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{name}: the weights in {folder} cannot be read: {reason}\nFetch them anew.") from None
    raise WeightsError(
        f"{name}: {folder} holds no weights, neither model.safetensors nor pytorch_model.bin.\n"
        "Fetch all of the repository, or choose another pooling than native."
    )


def _path(name: str, file: str) -> Path | None:
    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if path is None else Path(path)


def not_whole(name: str, file: str) -> WeightsError:
    """What to say where a file is missing beside others."""
    cure = (
        "Mend the folder, or save the model into it anew." if is_path(name) else f"Fetch all of it: hf download {name}"
    )
    return WeightsError(f"{name} is not whole: {file} is missing.\n{cure}")


def why_not_loaded(name: str, error: Exception) -> WeightsError:
    """What to say where transformers could not load something."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error):
        return own_code(name)
    if "TimmWrapper" in reason:
        return of_timm(name)
    if is_path(name):
        return WeightsError(f"{name} cannot be loaded: {reason}\nMend the folder, or save the model into it anew.")
    if isinstance(error, OSError):
        return WeightsError(
            f"hf/{name} is not in the local cache, or not whole, and the Hub cannot be reached or has no such model."
            f"{near(name, cached_names('*'))}\n"
            f"With a network, run: hf download {name}   Without, give a folder that holds it: ./folder"
        )
    return WeightsError(f"hf/{name} cannot be loaded: {reason}\nSee what it is: https://huggingface.co/{name}")


def declares_modules(name: str) -> bool:
    """Whether a repository says, as sentence-transformers does, how its vectors are pooled.

    Raises:
        WeightsError: if that cannot be told: another pooling than the declared one would give other vectors, unnoticed.
    """
    if read_json(name, "modules.json") is not None:
        return True
    if not is_path(name) and try_to_load_from_cache(name, "modules.json") is not _CACHED_NO_EXIST:
        raise WeightsError(
            f"hf/{name} is in the local cache, but not whether it declares a pooling (modules.json).\n"
            f"With a network, run: hf download {name}   Without, give a folder that holds all of it: ./folder"
        )
    return False


def _is_folder(folder: Path) -> bool:
    try:
        config = read(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config
