"""Text encoders: BERT and its relatives, and what sentence-transformers has saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Pooling, Stage
from finetuner_core.modeling.pooling import POOLINGS
from finetuner_core.plugin import BackboneInfo, OptionError, OptionValue
from finetuner_hf.hub import read_config, read_json, unreachable
from finetuner_hf.stages import transformer_stages
from finetuner_hf.tokens import TextPreprocess, max_length

# What a sentence-transformers pooling module calls a pooling, and what Finetuner does.
_DECLARED_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


class TextNetwork(nn.Module):
    """A text encoder, and the pooling that a sentence-transformers repository declares beside it.

    Args:
        encoder: the network.
        declared: the declared pooling's name, `None` where none is declared, or the reason why it is not supported.
    """

    def __init__(self, encoder: PreTrainedModel, declared: str | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.declared = declared


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """The encoder of a row, with its tokenizer."""
    config = read_config(info.name)
    missing: Sequence[str] = ()
    try:
        tokenizer = AutoTokenizer.from_pretrained(info.name)
        if pretrained:
            encoder, report = AutoModel.from_pretrained(info.name, dtype=torch.float32, output_loading_info=True)
            missing = report["missing_keys"]
        else:
            encoder = AutoModel.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise unreachable(info.name, error) from error
    declared, declared_length = _read_declared(info.name)
    wanted = options.get("max_length") or declared_length
    limit = max_length(tokenizer, _positions(encoder), int(str(wanted)) if wanted else None)

    def save(folder: Path) -> None:
        encoder.save_pretrained(folder)
        tokenizer.model_max_length = limit
        tokenizer.save_pretrained(folder)
        if network.declared is not None:
            _write_declared(folder, network.declared, encoder.config.hidden_size, limit)

    network = TextNetwork(encoder, declared)
    new_weights = tuple(f"encoder.{name}" for name in missing)
    return LoadedBackbone(network, {"text": TextPreprocess(tokenizer, limit)}, save, new_weights)


def strip(loaded: LoadedBackbone, pooling: str) -> FeatureExtractor:
    """The encoder without the pooler that was trained to tell whether two sentences follow each other."""
    network = loaded.network
    assert isinstance(network, TextNetwork)
    if getattr(network.encoder, "pooler", None) is not None:
        network.encoder.pooler = None
    if pooling != "native":
        # Another pooling than the declared one makes another model: it must not be saved under the old declaration.
        network.declared = None
        return TokenExtractor(network.encoder)
    if network.declared not in _DECLARED_POOLINGS.values():
        raise OptionError(
            f"The folder declares {network.declared}, which finetuner-hf cannot compute.\n"
            "Choose another pooling, such as mean: the vectors are then others than its authors meant."
        )
    return PooledExtractor(network.encoder, POOLINGS[network.declared](network.encoder.config.hidden_size))


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


def _read_declared(name: str) -> tuple[str | None, int | None]:
    """The pooling that a sentence-transformers repository declares, and the tokens that it reads."""
    modules = read_json(name, "modules.json")
    if not isinstance(modules, list):
        return None, None
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Normalize" for kind in kinds[2:]):
        return f"the modules {', '.join(kinds)}", None
    settings = read_json(name, f"{modules[0]['path'] or '.'}/sentence_bert_config.json".removeprefix("./"))
    length = settings.get("max_seq_length") if isinstance(settings, dict) else None
    pooling = read_json(name, f"{modules[1]['path']}/config.json")
    if not isinstance(pooling, dict):
        return "a pooling without a configuration", None
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if isinstance(pooling.get("pooling_mode"), str):
        modes = [f"pooling_mode_{pooling['pooling_mode']}", *modes]
        modes = [
            {
                "pooling_mode_mean": "pooling_mode_mean_tokens",
                "pooling_mode_cls": "pooling_mode_cls_token",
                "pooling_mode_max": "pooling_mode_max_tokens",
            }.get(mode, mode)
            for mode in modes
        ]
    declared = _DECLARED_POOLINGS.get(modes[0], modes[0]) if len(set(modes)) == 1 else f"the poolings {modes}"
    return declared, length if isinstance(length, int) else None


def _write_declared(folder: Path, declared: str, dim: int, length: int) -> None:
    """The files by which sentence-transformers, and `_read_declared`, know the pooling."""
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": dim} | {mode: name == declared for mode, name in _DECLARED_POOLINGS.items()}
    (folder / "1_Pooling").mkdir()
    for file, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False}),
    ):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
