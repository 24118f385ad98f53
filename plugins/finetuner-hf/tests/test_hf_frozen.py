"""Text models are trained from a cache as they are without one, packed or padded, wherever they are frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.modeling.build import build_model
from finetuner_core.training.feed import Feed, feeds_of
from finetuner_core.training.freezing import freeze
from finetuner_core.training.frozen.feeds import Cached, CachedFeed, cached_feeds

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES | {"pad_token_id": 1}),
    "distilbert": DistilBertConfig(
        vocab_size=128, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40
    ),
    "mpnet": MPNetConfig(**SIZES | {"pad_token_id": 1}),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "deberta": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0),
    "gpt2": GPT2Config(vocab_size=128, n_positions=64, n_embd=32, n_layer=3, n_head=4),
    # The positions that all layers read come from the first one.
    "t5": T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
}
WORDS = ["a", "cat", "sits", "on", "the", "mat", "with", "dog", "and", "quick", "brown", "fox"]
TEXTS = [" ".join(WORDS[: 1 + (5 * number) % 12]) for number in range(9)]
DATA = Dataset((Column("anchor", "text", ["", *TEXTS[1:]]), Column("positive", "text", TEXTS[::-1])))


def gradients(feed: Feed, rows: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Embeddings of some rows, and what training would get of them."""
    trained = [parameter for parameter in feed.encoder.parameters() if parameter.requires_grad]
    embedded = feed.encoder(feed.collate(feed.prepare(rows, torch.Generator())))
    weights = torch.linspace(-1, 1, embedded.numel()).view_as(embedded)
    found = torch.autograd.grad((embedded * weights).sum(), trained, allow_unused=True)
    return embedded, [gradient for gradient in found if gradient is not None]


def made(folder: Path, what: int | str, pooling: str) -> tuple[list[Feed], Cached]:
    """The columns as they are, and from a cache."""
    model = build_model(str(folder), output_dim=4, pooling=pooling)
    frozen = freeze(model, what)
    live = feeds_of(model, DATA, None)
    return live, cached_feeds(model, DATA, live, frozen, folder=folder / "cache", dtype=torch.float32)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("what", [1, 2, "backbone"])
@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_and_gradients_are_those_without_a_cache(
    name: str, what: int | str, pooling: str, save_text_model: Callable[..., Any], tmp_path: Path
) -> None:
    save_text_model(tmp_path, CONFIGS[name], T5EncoderModel if name == "t5" else None)
    live, cached = made(tmp_path, what, pooling)
    if name == "t5" and what == 1:
        # What looks up its embeddings shares their weight, and is another module than the one that is frozen.
        assert "its frozen part gives nothing of an item's own" in cached.said[0]
        return
    for column, feed in enumerate(cached.feeds):
        assert isinstance(feed, CachedFeed), cached.said
        # Not longest first, so that packing has something to sort.
        for rows in ([0, 3, 1, 4, 1, 8], [2], [0, 5]):
            expected, found = gradients(live[column], rows), gradients(feed, rows)
            torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
