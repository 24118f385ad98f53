"""Useful FLOP, against what torch counts in a step of the same network."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks.speed.floor import Transformer, of_model  # noqa: E402


def test_useful_flops_are_those_of_texts_without_padding(tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40
    )
    config.save_pretrained(tmp_path)
    config._attn_implementation = "eager"
    network = transformers.BertModel(config, add_pooling_layer=False).train()
    counted = 0
    for length in (5, 9):
        with FlopCounterMode(display=False) as counter:
            network(torch.ones(1, length, dtype=torch.long)).last_hidden_state.sum().backward()
        counted += counter.get_total_flops()

    # Nothing of it is left out or counted twice.
    assert of_model(str(tmp_path)).useful_flops([5, 9]) == counted


def test_the_linear_layers_are_those_of_the_blocks(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40
    )
    config.save_pretrained(tmp_path)

    assert of_model(str(tmp_path)) == Transformer(
        linear=3 * (4 * 24 * 24 + 2 * 24 * 40), shapes=((24, 24), (24, 40), (40, 24)), layers=3, width=24
    )
