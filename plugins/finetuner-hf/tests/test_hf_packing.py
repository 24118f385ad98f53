"""Texts without padding: features and gradients against transformers' own padded computation, for every family."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, BertConfig, MPNetConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import finetuner
from finetuner_core.interfaces import Features
from finetuner_hf import packing
from finetuner_hf.architecture import PACKABLE, architecture_of
from finetuner_hf.extractors import TokenExtractor

SaveModel = Callable[..., PreTrainedModel]
LENGTHS = (12, 1, 7, 12, 30, 3)
# What makes a network of any family small; each takes those that it has.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "n_words"), 128),
    **dict.fromkeys(("hidden_size", "dim", "d_model", "n_embd", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("sliding_window", "local_attention"), 6),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    **{"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    **{"moe_intermediate_size": 16, "num_experts_per_tok": 2},
}


def small(kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    """A configuration in which everything is small."""
    known = kind()
    return kind(**{key: SMALL[key] for key in SMALL if hasattr(known, key)})


def network_of(kind: str) -> PreTrainedModel:
    """A small network whose every matrix matters."""
    torch.manual_seed(0)
    network: PreTrainedModel = AutoModel.from_config(small(CONFIG_MAPPING[kind]), dtype=torch.float32)  # type: ignore[no-untyped-call]
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    network.train(False)
    return network


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return torch.randint(5, 120, mask.shape, generator=generator) * mask, mask


def gradients(network: PreTrainedModel, states: Tensor, mask: Tensor) -> list[Tensor | None]:
    network.zero_grad()
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    (states * weights * mask.unsqueeze(-1)).sum().backward()  # type: ignore[no-untyped-call]
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(PACKABLE))
def test_every_family_that_is_packed_computes_what_it_does_padded(kind: str) -> None:
    network = network_of(kind)
    ids, mask = batch()
    more: dict[str, Any] = {"position_ids": (mask.long().cumsum(1) - 1).clamp(min=0), "use_cache": False}
    architecture = architecture_of(network.config)
    assert architecture is not None
    takes = inspect.signature(network.forward).parameters
    more = {name: value for name, value in more.items() if architecture.decoder and name in takes}
    padded = network(input_ids=ids, attention_mask=mask.long(), **more).last_hidden_state
    expected = gradients(network, padded, mask)
    packing.pack(network)
    packed = packing.last_hidden_state(network, ids, mask, packing.first_position(network))
    assert not packed[~mask].any()
    assert (packed - padded)[mask].abs().max() < 1e-5 * padded[mask].abs().max()
    largest = max(float(gradient.abs().max()) for gradient in expected if gradient is not None)
    for own, right in zip(gradients(network, packed, mask), expected, strict=True):
        assert (own is None) == (right is None)
        if own is not None and right is not None:
            assert (own - right).abs().max() < 1e-5 * largest


@pytest.mark.parametrize(("kind", "packed"), [(BertConfig, True), (Qwen3Config, True), (MPNetConfig, False)])
def test_a_model_says_whether_it_packs_and_its_folder_says_nothing_of_it(
    kind: type[PreTrainedConfig], packed: bool, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / "model", small(kind))
    model = finetuner.build_model(str(tmp_path / "model"))
    assert model.encoder("text").padding_free is packed
    model.save(tmp_path / "saved")
    assert "packed" not in (tmp_path / "saved" / "config.json").read_text()


def test_real_tokens_alone_are_computed(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", small(BertConfig))
    extractor = finetuner.build_model(str(tmp_path / "bert")).encoder("text").extractor
    assert isinstance(extractor, TokenExtractor)
    seen: list[int] = []
    linear = next(module for module in extractor.modules() if isinstance(module, torch.nn.Linear))
    linear.register_forward_hook(lambda module, given, made: seen.append(made.numel() // made.shape[-1]))
    ids, mask = batch()
    features: Features = extractor({"input_ids": ids, "attention_mask": mask.long()})
    assert seen == [sum(LENGTHS)]
    assert features.tokens.shape == (len(LENGTHS), max(LENGTHS), 32)
    assert torch.equal(features.mask, mask)
