"""Cross-encoders: networks of transformers that read two texts together, as sentence-transformers scores with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetuner_core.catalogue.names import is_path
from finetuner_core.interfaces import CrossEncoder
from finetuner_core.plugin import WeightsError
from finetuner_core.values import quote
from finetuner_hf.hub import has_own_code, own_code, read_config, read_json
from finetuner_hf.network import loading
from finetuner_hf.prompts import FILE as GENERAL
from finetuner_hf.tokens import max_length, read_tokenizer

Settings = Mapping[str, object]

# What a repository may declare that is done to the one logit, by the last part of its name.
_ACTIVATIONS: dict[str, type[nn.Module]] = {"Sigmoid": nn.Sigmoid, "Identity": nn.Identity}


class HfCrossEncoder(CrossEncoder):
    """A network with one logit.

    Args:
        network: the network, its head included.
        tokenizer: its own.
        limit: how many tokens of both texts together are read.
        activation: what is done to the logit.
    """

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int, activation: nn.Module
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.limit = limit
        self.activation = activation

    def score(self, queries: Sequence[str], documents: Sequence[str], batch_size: int) -> Tensor:
        """How well each document answers the query beside it, float32 (N,), on the CPU."""
        scores = torch.empty(len(queries))
        # Pairs of like length share a batch, so that little of it is padding.
        lengths = [len(query) + len(document) for query, document in zip(queries, documents, strict=True)]
        order = sorted(range(len(queries)), key=lambda row: -lengths[row])
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [queries[row] for row in rows],
                [documents[row] for row in rows],
                padding=True,
                truncation="longest_first",
                max_length=self.limit,
                return_tensors="pt",
            ).to(self.network.device)
            logits: Tensor = self.network(**batch).logits
            scores[rows] = self.activation(logits.float()).squeeze(-1).cpu()
        return scores


def find_cross_encoder(name: str) -> HfCrossEncoder | None:
    """The cross-encoder of a Hub id or a folder; `None` for a folder in another format.

    Raises:
        WeightsError: if it cannot be had, gives more than one score, or declares what is not computed here.
    """
    if is_path(name):
        folder = Path(name).expanduser().resolve()
        if not (folder / "config.json").is_file():
            return None
        name = str(folder)
    config = read_config(name)
    if has_own_code(config):
        raise own_code(name)
    _check_kind(name, config)
    general, reading = _declared(name)
    activation = _activation(name, config, general)
    with loading(name):
        tokenizer = read_tokenizer(name)
        network, report = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    if report["missing_keys"]:
        raise WeightsError(
            f"{name} holds no weights for {sorted(report['missing_keys'])[0]}, so that its scores would be random.\n"
            "Choose a model that was trained as a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2."
        )
    limit = max_length(tokenizer, _positions(config), reading.get("max_seq_length"))
    return HfCrossEncoder(network, tokenizer, limit, activation).eval()


def _check_kind(name: str, config: PreTrainedConfig) -> None:
    architecture = (config.architectures or ["none"])[0]
    if not architecture.endswith("ForSequenceClassification"):
        raise WeightsError(
            f"{name} is a {architecture}, not a cross-encoder (...ForSequenceClassification).\n"
            "Choose one that was trained to score a query with a document, such as cross-encoder/ms-marco-MiniLM-L6-v2."
        )
    if config.num_labels != 1:
        labels = ", ".join(map(str, (config.id2label or {}).values()))
        raise WeightsError(
            f"{name} gives {config.num_labels} scores for each pair ({labels}), as for entailment, and none says how "
            "well a document answers a query.\nChoose a cross-encoder with one, such as "
            "cross-encoder/ms-marco-MiniLM-L6-v2."
        )


def _declared(name: str) -> tuple[Settings, Settings]:
    """What sentence-transformers has written beside the network: on the whole, and on how texts are read."""
    modules = read_json(name, "modules.json")
    if not isinstance(modules, list):
        return {}, {}  # it reads these files only beside that one
    if len(modules) > 1:
        kinds = ", ".join(str(module.get("type", "")).rpartition(".")[2] for module in modules[1:])
        raise WeightsError(
            f"{name} puts {kinds} behind its network, which finetuner-hf does not compute.\n"
            "Choose a cross-encoder whose network alone gives the score."
        )
    general, reading = _settings(name, GENERAL), _settings(name, "sentence_bert_config.json")
    asked = [f"the prompt {quote(prompt)}"] if (prompt := general.get("default_prompt_name")) else []
    asked += ["texts in lower case (do_lower_case)"] if reading.get("do_lower_case") else []
    if asked:
        raise WeightsError(
            f"{name} declares {' and '.join(asked)}, which finetuner-hf does not do before a cross-encoder.\n"
            "Choose one that reads its texts as they are."
        )
    return general, reading


def _activation(name: str, config: PreTrainedConfig, general: Settings) -> nn.Module:
    """What is declared to be done to the logit, in one of the three places where it has stood; else a sigmoid."""
    own = getattr(config, "sentence_transformers", None) or {}
    legacy = getattr(config, "sbert_ce_default_activation_function", None)
    declared = str(general.get("activation_fn") or own.get("activation_fn") or legacy or "torch.nn.Sigmoid")
    kind = _ACTIVATIONS.get(declared.rpartition(".")[2])
    if kind is None or not declared.startswith("torch."):
        raise WeightsError(
            f"{name} declares the activation {quote(declared)}, which finetuner-hf does not compute.\n"
            "Choose a cross-encoder with torch's Sigmoid or Identity."
        )
    return kind()


def _settings(name: str, file: str) -> Settings:
    content = read_json(name, file)
    return content if isinstance(content, dict) else {}


def _positions(config: PreTrainedConfig) -> int | None:
    """How many tokens there are positions for, `None` where any number."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return None if positions is None or positions < 1 else positions
