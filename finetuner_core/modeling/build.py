"""From a name or a folder to an embedding model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.artifacts.folder import SavedModel, is_saved_model
from finetuner_core.catalogue.discovery import Plugin
from finetuner_core.catalogue.names import is_path, resolve
from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.errors import FolderError, OptionError, PluginError, UnknownNameError
from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone, Pooling
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder, projection
from finetuner_core.values import BackboneInfo, Modality, OptionValue, near, quote, resolve_options

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger("finetuner")


def build_model(
    name: str, *, pretrained: bool = True, pooling: str | None = None, output_dim: int | None = None, **options: object
) -> EmbeddingModel:
    """Builds an embedding model: the backbone without its head, pooled.

    Args:
        name: a model of the table; `namespace/name` for any other that a plugin knows; or a folder, written as a path
            (`./model`), that a plugin's library or Finetuner itself has saved.
        pretrained: whether to load the backbone's weights; else they are random.
        pooling: one of the backbone's poolings; its first where not given.
        output_dim: adds a projection to this width.
        options: the backbone's own, as `finetuner show` lists them.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        UnknownNameError: if nobody, or more than one plugin, knows the name or the pooling.
        OptionError: if an option is unknown or not allowed.
        PluginError: if the plugin is missing or fails.
        WeightsError: if the weights cannot be had.
    """
    if is_path(name) and is_saved_model(name):
        given = {"pooling": pooling, "output_dim": output_dim, **options}
        for option, value in given.items():
            if value is not None:
                raise OptionError(f"{name} is a saved model, which has its own {option}; it cannot be set anew.")
        if not pretrained:
            raise OptionError(f"{name} is a saved model, which has its own weights; it cannot start from random ones.")
        return load(name)
    row = resolve(catalogue(), name)
    values = resolve_options(row.options, options, row.full_name)
    if output_dim is not None and output_dim < 1:
        raise OptionError(f"output_dim is {output_dim}; it must be at least 1.")
    return _assemble(row, pretrained, pooling or row.poolings[0], output_dim, values)


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
    saved = SavedModel.read(folder)
    namespace = saved.info.namespace
    if namespace not in {plugin.namespace for plugin in catalogue().plugins}:
        raise PluginError(
            f'{folder} needs the plugin "{namespace}", which is not installed.\n'
            f"Install it: pip install finetuner-{namespace}"
        )
    try:
        row = resolve(catalogue(), f"{namespace}/{folder}")
    except UnknownNameError:
        raise FolderError(f'{folder} is not complete: the plugin "{namespace}" finds no backbone in it.') from None
    options = resolve_options(row.options, {}, row.full_name)
    model = _assemble(row, True, saved.pooling, saved.projection_dim, options)
    model.info = replace(saved.info, options=row.options)
    model.read_head(folder)
    return model


def _assemble(
    row: BackboneInfo, pretrained: bool, pooling: str, output_dim: int | None, options: Mapping[str, OptionValue]
) -> EmbeddingModel:
    plugin = catalogue().plugin_of(row)
    if pooling not in row.poolings:
        raise OptionError(
            f"{row.name} does not support the pooling {quote(pooling)}.{near(pooling, row.poolings)}\n"
            f"It supports {', '.join(row.poolings)}."
        )
    loaded = call(plugin, "load_backbone", info=row, pretrained=pretrained, options=options)
    if not isinstance(loaded, LoadedBackbone):
        raise PluginError(f'Plugin "{plugin.namespace}": load_backbone gave {quote(loaded)}, no LoadedBackbone.')
    stripped = call(plugin, "strip_head", info=row, loaded=loaded, pooling=pooling)
    extractors = _checked_extractors(plugin, row, stripped)
    encoders = _encoders(row, extractors, pooling, output_dim)
    model = EmbeddingModel(info=row, pooling=pooling, encoders=encoders, loaded=loaded, pretrained=pretrained)
    model.eval()
    if new := model.new_weights:
        names = ", ".join(new[:3]) + (", ..." if len(new) > 3 else "")
        logger.warning("%s: %d weights were not in the checkpoint and start untrained: %s", row.name, len(new), names)
    widths = {encoder.output_dim for encoder in encoders.values()}
    expected = output_dim or (row.output_dim if pooling == row.poolings[0] else None)
    if len(widths) != 1 or (expected is not None and widths != {expected}):
        raise PluginError(f"{row.full_name} emits vectors of width {sorted(widths)}, and its row says {expected}.")
    return model


def _encoders(
    row: BackboneInfo, extractors: Mapping[Modality, FeatureExtractor], name: str, output_dim: int | None
) -> dict[Modality, Encoder]:
    plugin, info = catalogue().find_pooling(name)
    options = resolve_options(info.options, {}, f"pooling {name}")
    encoders: dict[Modality, Encoder] = {}
    projections: dict[int, nn.Linear] = {}
    for modality in row.modalities:
        extractor = extractors[modality]
        pooling = call(plugin, "build_pooling", info=info, dim=extractor.dim, options=options)
        if not isinstance(pooling, Pooling) or not _has_width(pooling):
            raise PluginError(
                f'Plugin "{plugin.namespace}": build_pooling gave {quote(pooling)}, not a Pooling with a width (dim).'
            )
        layer = None
        if output_dim is not None:
            # Modalities that share a space start with the same projection, or a new one each would tear them apart.
            start = projections.setdefault(pooling.dim, projection(pooling.dim, output_dim))
            layer = copy.deepcopy(start)
        encoders[modality] = Encoder(extractor=extractor, pooling=pooling, projection=layer)
    return encoders


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
