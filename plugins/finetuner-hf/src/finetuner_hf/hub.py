"""What a name means: a repository of the Hugging Face Hub, perhaps in the local cache, or a folder in its format."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from finetuner_core.plugin import BackboneInfo, WeightsError
from finetuner_hf.plugin import OPTIONS, ROWS, TOKEN_POOLINGS


def find(name: str) -> BackboneInfo | None:
    """The row of a Hub id or a folder; `None` for a folder in another format, or a model that cannot be embedded."""
    listed = next((row for row in ROWS if row.name == name), None)
    if listed is not None:
        return listed
    folder = Path(name).expanduser()
    if folder.is_absolute() or name.startswith((".", "~")):
        if not _is_folder(folder):
            return None
        name = str(folder.resolve())
    config = read_config(name)
    source = name if Path(name).is_absolute() else f"https://huggingface.co/{name}"
    if getattr(config, "text_config", None) is not None and getattr(config, "projection_dim", None) is not None:
        return BackboneInfo(
            name,
            "text-to-image",
            config.projection_dim,
            "transformer",
            config.model_type,
            options=OPTIONS,
            source=source,
        )
    if config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise WeightsError(
            f"{name} is a {config.model_type} model, which finetuner-hf does not open.\n"
            "It opens text encoders, such as bert-base-cased, and CLIP; for images there is finetuner-timm."
        )
    declared = read_json(name, "modules.json") is not None
    return BackboneInfo(
        name=name,
        task="text-to-text",
        output_dim=config.hidden_size,
        architecture="transformer",
        description=f"{config.model_type}, as sentence-transformers saved it" if declared else config.model_type,
        poolings=("native", *TOKEN_POOLINGS) if declared else TOKEN_POOLINGS,
        options=OPTIONS,
        source=source,
    )


def cached_names(pattern: str) -> Iterable[str]:
    """Hub ids of the models in the local cache."""
    try:
        repositories = [repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except CacheNotFound:
        repositories = []
    return fnmatch.filter({row.name for row in ROWS} | set(repositories), pattern)


def read_config(name: str) -> PreTrainedConfig:
    """The configuration of a Hub id or folder.

    Raises:
        WeightsError: if it is neither in the cache nor can be fetched, or is not one of transformers.
    """
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise unreachable(name, error) from error


def read_json(name: str, file: str) -> dict[str, object] | list[dict[str, object]] | None:
    """A JSON file of a Hub id or folder, `None` where it has none."""
    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if path is None:
        return None
    content: dict[str, object] | list[dict[str, object]] = json.loads(Path(path).read_text("utf-8"))
    return content


def unreachable(name: str, error: Exception) -> WeightsError:
    """What to say where transformers could not load something."""
    if Path(name).is_dir():
        return WeightsError(f"{name} cannot be loaded: {_first_line(error)}")
    if isinstance(error, OSError):
        return WeightsError(
            f"hf/{name} is not in the local Hugging Face cache, or not whole, and the Hub cannot be reached or does not "
            f"have it.\nWith a network, run: hf download {name}   Without, give a folder that holds it: ./folder"
        )
    return WeightsError(f"hf/{name} cannot be loaded: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _is_folder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config
