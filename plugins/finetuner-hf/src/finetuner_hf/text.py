"""Text models: encoders such as BERT, decoders such as Qwen3, and what sentence-transformers has saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import normalizers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetuner_core.catalogue.names import is_path
from finetuner_core.interfaces import FeatureExtractor, ForeignUse, LoadedBackbone, Preprocess
from finetuner_core.plugin import BackboneInfo, Modality, OptionError, OptionValue, Side
from finetuner_hf.architecture import Architecture, architecture_of
from finetuner_hf.declared import (
    Declaration,
    build_on_meta,
    load_layers,
    read_declaration,
    write_declaration,
    write_prompts,
)
from finetuner_hf.extractors import PooledExtractor, TokenExtractor
from finetuner_hf.hub import LOADING_ERRORS, declares_modules, not_whole, read_config
from finetuner_hf.layers import DeclaredPooling, UndeclaredError
from finetuner_hf.network import loading, open_network
from finetuner_hf.published import of_sentence_transformers, of_transformers
from finetuner_hf.rows import TEXT_OPTIONS
from finetuner_hf.tokens import TextPreprocess, max_length, read_tokenizer

_SIDES: tuple[Side, ...] = ("query", "document")


class TextNetwork(nn.Module):
    """A text model, and what a sentence-transformers repository declares beside it.

    Args:
        encoder: the network.
        architecture: how it is fed.
        declaration: what is declared, and will be written; once another pooling is chosen, that.
        pooling: what the declaration describes, `None` where it describes nothing.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        architecture: Architecture,
        declaration: Declaration,
        pooling: DeclaredPooling | None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.architecture = architecture
        self.declaration = declaration
        self.pooling = pooling


def accepts(config: PreTrainedConfig) -> bool:
    """Whether the network takes the tokens of a text and gives a feature for each."""
    return architecture_of(config) is not None


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of a text model."""
    kind = config.model_type
    architecture = _known(config)
    declared = declares_modules(name)
    pooling = None
    if declared:
        _, pooling = _build(read_declaration(name), architecture.dim, meta=True)
    return BackboneInfo(
        name=name,
        task="text-to-text",
        output_dim=architecture.dim if pooling is None else pooling.dim,
        architecture="transformer",
        description=f"{kind}, as sentence-transformers saved it" if declared else kind,
        poolings=("native", *architecture.poolings) if declared else architecture.poolings,
        options=TEXT_OPTIONS,
        source=source,
        parameters=_count(config, architecture, pooling),
    )


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The network of a row, with its tokenizer."""
    config = read_config(info.name)
    architecture = _known(config)
    # The row tells whether anything is declared: to ask the Hub for what is not there would need the network.
    known = "native" in info.poolings or is_path(info.name)
    declaration = read_declaration(info.name) if known else Declaration()
    with loading(info.name):
        tokenizer = read_tokenizer(info.name)
    encoder, missing = open_network(info.name, config, pretrained=pretrained, opener=architecture.opener)
    # transformers itself trains RoFormer's sines and cosines in a network that was loaded, and not in a new one.
    encoder.requires_grad_(True)
    declaration, pooling = _build(declaration, architecture.dim)
    if pooling is not None and pretrained:
        load_layers(info.name, declaration, pooling)
    if declaration.lower_case:
        _put_in_lower_case(tokenizer)
    limit = _limit(tokenizer, encoder, declaration.max_length, options.get("max_length"))
    prompts = declaration.prompts.with_options(options)
    feeding = TextPreprocess(tokenizer, limit, prompts.default, pool_prompt=declaration.pool_prompt)
    sides: dict[Side, Preprocess] = {
        side: feeding.with_prompt(prompts.of(side)) for side in _SIDES if prompts.of(side) != prompts.default
    }

    def save(network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextNetwork)
        network.encoder.save_pretrained(folder)
        feeding.save(folder)
        if network.pooling is not None:
            write_declaration(folder, network.declaration, network.pooling, architecture.dim, limit)
        if network.pooling is not None or prompts.texts:
            write_prompts(folder, prompts, network.declaration.truncate_dim)

    def publish(network: nn.Module, name: str, projection: nn.Linear | None, folder: Path) -> ForeignUse:
        assert isinstance(network, TextNetwork)
        declaration, pooling = network.declaration, network.pooling
        if pooling is None:
            return of_transformers(name, projection)
        if projection is not None:
            if name != "native":
                # Of the core's poolings nothing is scaled before it is projected.
                declaration, pooling = _build(replace(declaration, layers=()), architecture.dim)
                assert pooling is not None
            write_declaration(folder, declaration, pooling, architecture.dim, limit, projection)
            write_prompts(folder, prompts, declaration.truncate_dim, projected=True)
        truncated = projection is None and declaration.truncate_dim is not None
        return of_sentence_transformers(prompts, truncated=truncated)

    new_weights = tuple(f"encoder.{name}" for name in missing)
    network = TextNetwork(encoder, architecture, declaration, pooling)
    return LoadedBackbone(network, {"text": feeding}, save, new_weights, sides, publish)


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """The network without the pooler that was trained to tell whether two sentences follow each other."""
    network = loaded.network
    assert isinstance(network, TextNetwork)
    _remove_pooler(network.encoder)
    if pooling != "native":
        # Another pooling than the declared one makes another model, to be saved under a declaration of its own.
        network.declaration, network.pooling = _build(Declaration.of_pooling(pooling), network.architecture.dim)
        return {"text": TokenExtractor(network.encoder, network.architecture)}
    if network.pooling is None and not network.declaration.refused:
        raise not_whole(info.name, "modules.json")
    if network.pooling is None:
        raise OptionError(
            f"{info.name} declares {network.declaration.refused}, which finetuner-hf does not compute.\n"
            "Choose another pooling, such as mean: the vectors are then others than its authors meant."
        )
    return {"text": PooledExtractor(network.encoder, network.architecture, network.pooling)}


def _known(config: PreTrainedConfig) -> Architecture:
    architecture = architecture_of(config)
    assert architecture is not None, config.model_type
    return architecture


def _build(declaration: Declaration, dim: int, meta: bool = False) -> tuple[Declaration, DeclaredPooling | None]:
    """What a declaration describes, if it describes anything that fits together."""
    if not declaration.modes:
        return declaration, None
    try:
        return declaration, build_on_meta(declaration, dim) if meta else declaration.build(dim)
    except UndeclaredError as error:
        return replace(declaration, modes=(), layers=(), refused=str(error)), None


def _count(config: PreTrainedConfig, architecture: Architecture, pooling: nn.Module | None) -> int | None:
    """How many parameters the model has, counted on a network without numbers; `None` where that cannot be built."""
    try:
        with torch.device("meta"):
            encoder: nn.Module = architecture.opener.from_config(config)  # type: ignore[no-untyped-call]
    except LOADING_ERRORS:
        return None
    _remove_pooler(encoder)
    parts = [encoder] if pooling is None else [encoder, pooling]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _remove_pooler(encoder: nn.Module) -> None:
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]


def _limit(
    tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, declared: int | None, asked: OptionValue
) -> int:
    """How many tokens are read: what was asked for or is declared, never more than there are positions for."""
    if declared is not None:
        # As with sentence-transformers, what the repository declares goes before what its tokenizer says.
        tokenizer.model_max_length = max(tokenizer.model_max_length, declared)
    return max_length(tokenizer, _positions(encoder), declared if asked is None else asked)


def _positions(encoder: PreTrainedModel) -> int | None:
    """How many tokens the network has positions for, `None` where it has them for any number."""
    positions: int | None = getattr(encoder.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        # RoBERTa and its relatives count from behind the padding's own position.
        positions -= int(table.padding_idx) + 1
    return positions


def _put_in_lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes it a part of the tokenizer, where it is also saved."""
    backend = tokenizer.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
