"""Text encoders: BERT and its relatives, and what sentence-transformers has saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import normalizers
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Pooling, Stage
from finetuner_core.modeling.pooling import POOLINGS
from finetuner_core.plugin import BackboneInfo, Modality, OptionError, OptionValue
from finetuner_hf.declared import Declaration, read_declaration, write_declaration
from finetuner_hf.hub import LOADING_ERRORS, declares_modules, read_config, why_not_loaded
from finetuner_hf.rows import OPTIONS, TOKEN_POOLINGS
from finetuner_hf.stages import transformer_stages
from finetuner_hf.tokens import TextPreprocess, max_length, read_tokenizer


class TextNetwork(nn.Module):
    """A text encoder, and what a sentence-transformers repository declares beside it.

    Args:
        encoder: the network.
        declaration: what is declared; once another pooling is chosen, nothing is.
    """

    def __init__(self, encoder: PreTrainedModel, declaration: Declaration) -> None:
        super().__init__()
        self.encoder = encoder
        self.declaration = declaration


def accepts(config: PreTrainedConfig) -> bool:
    """Whether the network takes the tokens of a text and gives a feature for each."""
    mappings = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    known = any(config.model_type in mapping for mapping in mappings)
    return known and not config.is_encoder_decoder and isinstance(getattr(config, "hidden_size", None), int)


def row(name: str, config: PreTrainedConfig, source: str) -> BackboneInfo:
    """The row of a text encoder."""
    declared = declares_modules(name)
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


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The encoder of a row, with its tokenizer."""
    config = read_config(info.name)
    missing: Iterable[str] = ()
    try:
        tokenizer = read_tokenizer(info.name)
        if pretrained:
            encoder, report = AutoModel.from_pretrained(
                info.name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
            missing = report["missing_keys"]
        else:
            encoder = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except LOADING_ERRORS as error:
        raise why_not_loaded(info.name, error) from error
    # The row tells whether anything is declared: to ask for what is not there would need the network.
    declaration = read_declaration(info.name) if "native" in info.poolings else Declaration(None, "nothing")
    if declaration.lower_case:
        _put_in_lower_case(tokenizer)
    limit = max_length(tokenizer, _positions(encoder), options.get("max_length") or declaration.max_length)
    network, feeding = TextNetwork(encoder, declaration), TextPreprocess(tokenizer, limit)

    def save(network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextNetwork)
        network.encoder.save_pretrained(folder)
        feeding.save(folder)
        if network.declaration.pooling is not None:
            write_declaration(folder, network.declaration.pooling, network.encoder.config.hidden_size, limit)

    return LoadedBackbone(network, {"text": feeding}, save, tuple(f"encoder.{name}" for name in sorted(missing)))


def strip(info: BackboneInfo, loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    """The encoder without the pooler that was trained to tell whether two sentences follow each other."""
    network = loaded.network
    assert isinstance(network, TextNetwork)
    if getattr(network.encoder, "pooler", None) is not None:
        network.encoder.pooler = None  # type: ignore[assignment]
    declaration = network.declaration
    if pooling != "native":
        # Another pooling than the declared one makes another model: it must not be saved under the old declaration.
        network.declaration = Declaration(None, f"the pooling {pooling}")
        return {"text": TokenExtractor(network.encoder)}
    if declaration.pooling is None:
        raise OptionError(
            f'For pooling "native" a model declares mean, cls or max; this one declares {declaration.what}.\n'
            "Choose another pooling, such as mean: the vectors are then others than its authors meant."
        )
    own = POOLINGS[declaration.pooling](network.encoder.config.hidden_size)
    return {"text": PooledExtractor(network.encoder, own)}


class TokenExtractor(FeatureExtractor):
    """The last hidden state of an encoder, a feature for each token.

    Args:
        encoder: the network.
    """

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.dim: int = encoder.config.hidden_size

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D), padding masked."""
        tokens = self.encoder(**batch).last_hidden_state
        return Features(tokens, batch["attention_mask"].bool())

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, and what follows them."""
        return transformer_stages(self.encoder)


class PooledExtractor(TokenExtractor):
    """The vector that a sentence-transformers repository declares.

    Args:
        encoder: the network.
        pooling: what is declared.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__(encoder)
        self.pooling = pooling

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        return Features.of_vectors(self.pooling(super().forward(batch)))


def _positions(encoder: PreTrainedModel) -> int | None:
    """How many tokens the network has positions for."""
    positions: int | None = getattr(encoder.config, "max_position_embeddings", None)
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if positions is not None and isinstance(table, nn.Embedding) and table.padding_idx is not None:
        # RoBERTa and its relatives count from behind the padding's own position.
        return positions - table.padding_idx - 1
    return positions


def _put_in_lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes it a part of the tokenizer, where it is also saved."""
    backend = tokenizer.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
