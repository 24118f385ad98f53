"""What a saved model's `finetuner.json` says, and the row of a model wherever it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetuner_core.artifacts.folder import FILE, is_saved_model, write_json
from finetuner_core.catalogue.names import is_path, resolve
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import FolderError, OptionError
from finetuner_core.untrusted import check_folder, read_json
from finetuner_core.values import SIDES, BackboneInfo, Modality, OptionValue, quote

FORMAT_VERSION = 1

_ROW_FIELDS = ("name", "task", "output_dim", "architecture", "description", "licence", "source", "parameters")


@dataclass(frozen=True)
class Base:
    """How a backbone is found again, as an adapter has to that was trained beside it.

    Args:
        name: by which its plugin knows it, `namespace/name` or `namespace//folder`.
        options: the values that it was built with.
        sha256: over its weights, where they have to be the same.
    """

    name: str
    options: Mapping[str, OptionValue]
    sha256: str = ""


@dataclass(frozen=True)
class SavedModel:
    """What `finetuner.json` says of a saved model with one backbone.

    Args:
        info: the backbone's row.
        pooling: the name of its pooling.
        pooling_options: the values that the pooling was built with.
        projection_dim: the width of its projection, `None` where it has none.
        base: where the folder holds an adapter, what it belongs to; `None` where it holds the backbone itself.
    """

    info: BackboneInfo
    pooling: str
    pooling_options: Mapping[str, OptionValue]
    projection_dim: int | None
    base: Base | None = None

    def write(self, folder: Path) -> None:
        """Writes `finetuner.json`, the last file of the folder: it names all others."""
        content = {
            "plugin": self.info.namespace,
            "backbone": {name: getattr(self.info, name) for name in _ROW_FIELDS},
            "pooling": self.pooling,
            "pooling_options": dict(self.pooling_options),
            "projection_dim": self.projection_dim,
        }
        _write(folder, content | ({} if self.base is None else {"base": asdict(self.base)}))


@dataclass(frozen=True)
class SavedTowers:
    """A saved model with two backbones: each is a saved model of its own, in a folder of the model's folder.

    Args:
        query: what asks.
        document: what is found.
    """

    query: SavedModel
    document: SavedModel

    @property
    def info(self) -> BackboneInfo:
        """The row that stands for both."""
        return joined_row(self.query.info, self.document.info)


def write_towers(folder: Path) -> None:
    """Writes the `finetuner.json` of a folder that holds a saved model for each side."""
    _write(folder, {"towers": list(SIDES)})


def read_saved(folder: Path) -> SavedModel | SavedTowers:
    """Reads `finetuner.json`.

    Raises:
        FolderError: if it is not there, not readable, or of a newer format, or a file of the folder leads out of it.
    """
    if is_saved_model(folder):
        check_folder(folder, saved=True)
    content = _read(folder)
    if "towers" not in content:
        return _saved_model(folder, content)
    query, document = (_saved_model(folder / side, _read(folder / side)) for side in SIDES)
    return SavedTowers(query, document)


def joined_row(query: BackboneInfo, document: BackboneInfo) -> BackboneInfo:
    """The row that stands for two backbones, one for what asks and one for what is found.

    Raises:
        OptionError: if they do not go together.
    """
    tasks: Mapping[tuple[Modality, ...], str] = {("text", "image"): "text-to-image", ("text", "text"): "text-to-text"}
    task = tasks.get((*query.modalities, *document.modalities))
    if task is None:
        raise OptionError(
            f"{query.name} takes {' and '.join(query.modalities)}, {document.name} {' and '.join(document.modalities)}."
            "\nTwo towers are a text model for what asks (text_model), and a model of images or texts that are found."
        )
    return BackboneInfo(
        name=f"{query.name} + {document.name}",
        task=task,
        output_dim=None
        if query.output_dim is None or document.output_dim is None
        else min(query.output_dim, document.output_dim),
        architecture="two towers",
        description=f"Texts by {query.full_name}, {document.modalities[0]}s by {document.full_name}",
    )


def _write(folder: Path, content: Mapping[str, object]) -> None:
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    write_json(folder / FILE, {"format_version": FORMAT_VERSION, **content, "files": files})


def _read(folder: Path) -> dict[str, Any]:
    file = folder / FILE
    if not file.is_file():
        raise FolderError(f"{folder} holds no saved model: there is no {FILE} in it.")
    with _readable(file):
        content: dict[str, Any] = read_json(file, strict=True)
        version = content["format_version"]
    if version != FORMAT_VERSION:
        raise FolderError(
            f"{file} has format version {quote(version)}; this Finetuner reads {FORMAT_VERSION}.\n"
            "If it was written by a newer one: pip install --upgrade finetuner-core"
        )
    return content


def _saved_model(folder: Path, content: Mapping[str, Any]) -> SavedModel:
    file = folder / FILE
    with _readable(file):
        row = {name: content["backbone"][name] for name in _ROW_FIELDS}
        info = BackboneInfo(**row, poolings=(content["pooling"],), namespace=str(content["plugin"]))
        width = content["projection_dim"]
        if width is not None and (type(width) is not int or width < 1):
            raise FolderError(f"{file} is not valid: projection_dim is {quote(width)}, no positive whole number.")
        base = _base(content["base"]) if "base" in content else None
        # Folders of 0.1.0 have none.
        options = dict(content.get("pooling_options", {}))
    return SavedModel(info, content["pooling"], options, width, base)


def _base(content: Mapping[str, Any]) -> Base:
    base = Base(**content)
    if not isinstance(base.name, str) or not isinstance(base.options, dict) or not isinstance(base.sha256, str):
        raise ValueError(f"base is {quote(content)}, not a name, options and a checksum")
    return base


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Within it, what a `finetuner.json` that is damaged or was edited raises becomes a word about it."""
    try:
        yield
    except OptionError as error:
        raise FolderError(f"{file} is not valid: {error}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{file} cannot be read: {type(error).__name__}: {error}.") from None


def model_name(model: str | Path) -> str:
    """The name that stands for a model: a `Path` is a folder, also where it does not look like one when it is written.

    >>> model_name("bert")
    'bert'
    """
    return str(model.expanduser().absolute()) if isinstance(model, Path) else model


def find_row(name: str, text_model: str | None = None) -> BackboneInfo:
    """The row of a model without loading it: of the table, of a plugin, or of a saved model.

    Args:
        name: the model's name.
        text_model: the name of a second model, for the texts that ask; the row is then that of both.

    Raises:
        UnknownNameError: if nobody, or more than one plugin, knows it.
        FolderError: if it is the folder of a saved model that cannot be read.
        OptionError: if the two do not go together.
    """
    if text_model is not None:
        return joined_row(find_row(text_model), find_row(name))
    if is_path(name) and is_saved_model(name):
        return read_saved(Path(name).expanduser().resolve()).info
    return resolve(catalogue(), name)
