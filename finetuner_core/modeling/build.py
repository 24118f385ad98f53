"""From a name or a folder to an embedding model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from finetuner_core.artifacts.card import read_papers
from finetuner_core.artifacts.folder import is_saved_model
from finetuner_core.artifacts.saved import Base, SavedModel, SavedTowers, find_row, joined_row, read_saved
from finetuner_core.catalogue.discovery import BUILTIN_NAMESPACE, Plugin
from finetuner_core.catalogue.names import is_path, resolve
from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.errors import FolderError, OptionError, PluginError, UnknownNameError
from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone, Pooling
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.modeling.tower import Tower
from finetuner_core.values import BackboneInfo, Modality, PoolingInfo, is_namespace, near, quote, resolve_options

logger = logging.getLogger("finetuner")


def build_model(
    name: str,
    *,
    pretrained: bool = True,
    pooling: str | None = None,
    pooling_options: Mapping[str, object] | None = None,
    output_dim: int | None = None,
    text_model: str | None = None,
    **options: object,
) -> EmbeddingModel:
    """Builds an embedding model: the backbone without its head, pooled.

    Args:
        name: a model of the table; `namespace/name` for any other that a plugin knows; or a folder, written as a path
            (`./model`), that a plugin's library or Finetuner itself has saved.
        pretrained: whether to load the backbone's weights; else they are random.
        pooling: one of the backbone's poolings; its first where not given. Where it has token features, a pooling of
            another plugin will do as well.
        pooling_options: the pooling's own options.
        output_dim: adds a projection to this width.
        text_model: a second model, a tower of its own for the texts that ask; `name` is then what is found, images or
            texts. Each gets a projection into the space that they share, as wide as the narrower of the two unless
            `output_dim` says otherwise.
        options: the backbone's own, as `finetuner show` lists them; of two towers each takes those that it has.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        UnknownNameError: if nobody, or more than one plugin, knows the name or the pooling.
        OptionError: if an option is unknown or not allowed.
        PluginError: if the plugin is missing or fails.
        WeightsError: if the weights cannot be had.
    """
    if output_dim is not None and output_dim < 1:
        raise OptionError(f"output_dim is {output_dim}; it must be at least 1.")
    settings = _Settings(pretrained, pooling, pooling_options or {}, output_dim)
    if text_model is not None:
        return _build_towers(name, text_model, settings, options)
    if is_path(name) and is_saved_model(name):
        _refuse_settings(name, settings, options)
        return load(name)
    model = EmbeddingModel(_build_tower(name, settings, options))
    model.eval()
    return model


def load(path: str | Path) -> EmbeddingModel:
    """Opens a folder that `EmbeddingModel.save` or `finetuner fit` has written.

    Nothing in the folder is executed: it holds safetensors and JSON.

    Args:
        path: the folder.

    Returns:
        The model, on the CPU, in evaluation mode. Its embeddings are those of the saved one, bit by bit.

    Raises:
        FolderError: if it is no saved model, or its parts do not fit together.
        PluginError: if the plugin of its backbone is missing or fails.
    """
    folder = Path(path).expanduser().resolve()
    saved = read_saved(folder)
    if isinstance(saved, SavedTowers):
        document = _load_tower(folder / "document", saved.document)
        model = EmbeddingModel(document, query=_load_tower(folder / "query", saved.query))
    else:
        model = EmbeddingModel(_load_tower(folder, saved))
    model.eval()
    model.papers = read_papers(folder)
    return model


class _Settings(NamedTuple):
    """What a person may set of a backbone that is built, and not of one that was saved."""

    pretrained: bool = True
    pooling: str | None = None
    pooling_options: Mapping[str, object] = {}
    output_dim: int | None = None


def _refuse_settings(name: str, settings: _Settings, options: Mapping[str, object]) -> None:
    given = {
        "pooling": settings.pooling,
        "pooling_options": settings.pooling_options or None,
        "output_dim": settings.output_dim,
        **options,
    }
    for option, value in given.items():
        if value is not None:
            raise OptionError(f"{name} is a saved model, which has its own {option}; it cannot be set anew.")
    if not settings.pretrained:
        raise OptionError(f"{name} is a saved model, which has its own weights; it cannot start from random ones.")


def _build_towers(name: str, text_model: str, settings: _Settings, options: Mapping[str, object]) -> EmbeddingModel:
    rows = {found: find_row(found) for found in dict.fromkeys((text_model, name))}
    joined_row(rows[text_model], rows[name])  # which says whether they go together, before anything is loaded
    known = {option.name for row in rows.values() for option in row.options}
    for option in options:
        if option not in known:
            what = f"It has {', '.join(sorted(known))}." if known else "They have no options."
            raise OptionError(
                f"Neither {text_model} nor {name} has an option {quote(option)}.{near(option, known)}\n{what}"
            )
    towers: list[Tower] = []
    for own_name, own in ((text_model, settings._replace(pooling=None, pooling_options={})), (name, settings)):
        own = own._replace(output_dim=None)
        if is_path(own_name) and is_saved_model(own_name):
            _refuse_settings(own_name, own, {})
            towers.append(_load_one_tower(own_name))
        else:
            declared = {option.name for option in rows[own_name].options}
            mine = {option: value for option, value in options.items() if option in declared}
            towers.append(_build_tower(own_name, own, mine))
    width = settings.output_dim or min(tower.output_dim for tower in towers)
    for tower in towers:
        tower.project(width)
    query, document = towers
    model = EmbeddingModel(document, query=query)
    model.eval()
    return model


def _load_one_tower(name: str) -> Tower:
    folder = Path(name).expanduser().resolve()
    saved = read_saved(folder)
    if isinstance(saved, SavedTowers):
        raise OptionError(f"{name} has two towers itself; give one of them: {name}/query or {name}/document.")
    return _load_tower(folder, saved)


def _load_tower(folder: Path, saved: SavedModel) -> Tower:
    namespace = saved.info.namespace
    if namespace not in {plugin.namespace for plugin in catalogue().plugins}:
        raise PluginError(
            f"{folder} needs the plugin {quote(namespace)}, which is not installed.\n"
            + (
                f"Install it: pip install finetuner-{namespace}"
                if is_namespace(namespace)
                else "No plugin has such a name."
            )
        )
    name = f"{namespace}/{folder}" if saved.base is None else saved.base.name
    try:
        row = resolve(catalogue(), name)
    except UnknownNameError:
        raise FolderError(
            f'{folder} is not complete: the plugin "{namespace}" finds no backbone in it.'
            if saved.base is None
            else f"{folder} holds an adapter, and the backbone that it belongs to is not there: {saved.base.name}."
        ) from None
    options = {} if saved.base is None else saved.base.options
    tower = _assemble(row, _Settings(True, saved.pooling, saved.pooling_options, saved.projection_dim), options)
    tower.info = replace(saved.info, options=row.options)
    if saved.base is not None:
        tower.read_adapter(folder, saved.base)
    tower.read_head(folder)
    _check_numbers(folder, tower)
    return tower


def _check_numbers(folder: Path, tower: Tower) -> None:
    """Refuses weights that are not numbers, which no training leaves and which make every vector NaN."""
    broken = next((name for name, tensor in tower.encoders.named_parameters() if torch.isnan(tensor).any()), None)
    if broken is not None:
        raise FolderError(f"{folder} is damaged: its weights {quote(broken)} hold NaN, which is no number.")


def _build_tower(name: str, settings: _Settings, options: Mapping[str, object]) -> Tower:
    tower = _assemble(resolve(catalogue(), name), settings, options)
    if new := tower.new_weights:
        names = ", ".join(new[:3]) + (", ..." if len(new) > 3 else "")
        logger.warning(
            "%s: %d weights were not in the checkpoint and start untrained: %s", tower.info.name, len(new), names
        )
    return tower


def _assemble(row: BackboneInfo, settings: _Settings, given: Mapping[str, object]) -> Tower:
    plugin = catalogue().plugin_of(row)
    options = resolve_options(row.options, given, row.full_name)
    pooling = settings.pooling or row.poolings[0]
    pooling_plugin, pooling_info = _find_pooling(row, pooling)
    pooling_options = resolve_options(pooling_info.options, settings.pooling_options, f"pooling {pooling}")
    loaded = call(plugin, "load_backbone", info=row, pretrained=settings.pretrained, options=options)
    if not isinstance(loaded, LoadedBackbone):
        raise PluginError(f'Plugin "{plugin.namespace}": load_backbone gave {quote(loaded)}, no LoadedBackbone.')
    stripped = call(plugin, "strip_head", info=row, loaded=loaded, pooling=pooling)
    extractors = _checked_extractors(plugin, row, stripped)
    encoders: dict[Modality, Encoder] = {}
    for modality in row.modalities:
        extractor = extractors[modality]
        layer = call(pooling_plugin, "build_pooling", info=pooling_info, dim=extractor.dim, options=pooling_options)
        if not isinstance(layer, Pooling) or not _has_width(layer):
            raise PluginError(
                f'Plugin "{pooling_plugin.namespace}": build_pooling gave {quote(layer)}, not a Pooling with a width '
                "(dim)."
            )
        encoders[modality] = Encoder(extractor=extractor, pooling=layer, projection=None)
    tower = Tower(
        info=row,
        base=Base(row.full_name, options),
        pooling=pooling,
        pooling_options=pooling_options,
        encoders=encoders,
        loaded=loaded,
        pretrained=settings.pretrained,
    )
    widths = {encoder.output_dim for encoder in encoders.values()}
    expected = row.output_dim if pooling == row.poolings[0] else None
    if len(widths) != 1 or (expected is not None and widths != {expected}):
        raise PluginError(f"{row.full_name} emits vectors of width {sorted(widths)}, and its row says {expected}.")
    if settings.output_dim is not None:
        tower.project(settings.output_dim)
    return tower


def _find_pooling(row: BackboneInfo, name: str) -> tuple[Plugin, PoolingInfo]:
    """The pooling of that name, if the backbone can have it: one that its row lists, or any that others add.

    Raises:
        UnknownNameError: if nobody lists it.
        OptionError: if the backbone does not support it.
    """
    added = {
        spelling
        for plugin in catalogue().plugins
        if row.has_tokens and plugin.namespace != BUILTIN_NAMESPACE
        for pooling in plugin.poolings
        for spelling in (pooling.name, f"{plugin.namespace}/{pooling.name}")
    }
    if name not in {*row.poolings, *added}:
        raise OptionError(
            f"{row.name} does not support the pooling {quote(name)}.{near(name, {*row.poolings, *added})}\n"
            f"It supports {', '.join([*row.poolings, *sorted(added)])}."
        )
    return catalogue().find_pooling(name)


def _checked_extractors(plugin: Plugin, row: BackboneInfo, value: object) -> Mapping[Modality, FeatureExtractor]:
    extractors = value if isinstance(value, Mapping) else {}
    found = {modality: extractors.get(modality) for modality in row.modalities}
    wrong = [name for name, it in found.items() if not isinstance(it, FeatureExtractor) or not _has_width(it)]
    if wrong:
        raise PluginError(
            f'Plugin "{plugin.namespace}": strip_head gave no FeatureExtractor with a dim for {", ".join(wrong)}.'
        )
    return extractors


def _has_width(module: FeatureExtractor | Pooling) -> bool:
    return isinstance(getattr(module, "dim", None), int)
