"""Exported to ONNX, text models and CLIP give their vectors by onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import BertConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config, RobertaConfig

import finetuner

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, pad_token_id=0),
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
}
TEXTS = ["a cat sits on the mat", "dog", "the quick brown fox jumps over the lazy dog " * 8, "a kitten is sitting"]

SaveModel = Callable[..., PreTrainedModel]


def alone(folder: Path, texts: list[str], prompt: str = "") -> np.ndarray:
    """What a person without Finetuner writes."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode_batch([prompt + text for text in texts])
    feed = {
        "input_ids": np.array([one.ids for one in encoded]),
        "attention_mask": np.array([one.attention_mask for one in encoded]),
    }
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    vectors: np.ndarray = session.run(None, {one.name: feed[one.name] for one in session.get_inputs()})[0]
    return vectors


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (CONFIGS["bert"], "mean"),
        (CONFIGS["bert"], "cls"),
        (CONFIGS["roberta"], "attention"),
        (CONFIGS["qwen3"], "last"),
    ],
    ids=["bert", "cls", "roberta", "qwen3"],
)
def test_a_text_model_alone(config: PreTrainedConfig, pooling: str, tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "network", config)
    model = finetuner.build_model(str(tmp_path / "network"), pooling=pooling, output_dim=12, query_prompt="dog ")
    result = finetuner.export(model, tmp_path / "onnx")
    told = json.loads((tmp_path / "onnx" / "export.json").read_text())["parts"][0]["feeding"]
    assert told["max_length"] == model.preprocess("text").max_length  # type: ignore[attr-defined]
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:2] * 7):
        assert np.abs(alone(result.path, texts) - model.encode(texts)).max() <= 1e-4
    asked = told["sides"]["query"]["prompt"]
    assert np.abs(alone(result.path, TEXTS, asked) - model.encode(TEXTS, side="query")).max() <= 1e-4


def test_in_int8_the_cosine_is_measured(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "network", CONFIGS["bert"])
    model = finetuner.build_model(str(tmp_path / "network"), pooling="mean")
    result = finetuner.export(model, tmp_path / "onnx", int8=True, data=TEXTS)
    (part,) = result.parts
    found = alone(result.path, TEXTS)
    # Of another batch, whose numbers are rounded by other ranges.
    assert abs((found * model.encode(TEXTS)).sum(1).mean() - part.cosine) < 0.02
    assert 0.9 <= part.cosine < 1
    whole = finetuner.export(model, tmp_path / "whole").path / "model.onnx"
    assert (result.path / "model.onnx").stat().st_size < whole.stat().st_size
