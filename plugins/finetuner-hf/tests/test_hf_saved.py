"""Saved models open bit by bit, and in transformers; and which weights are new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, PreTrainedModel

import finetuner
from finetuner_core.errors import WeightsError

CONFIG = BertConfig(
    vocab_size=128,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)
TEXTS = ["a cat sits on the mat", "dog", "the quick brown fox jumps over the lazy dog"]

SaveModel = Callable[..., PreTrainedModel]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_saved_model_opens_bit_by_bit(pooling: str, tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    model = finetuner.build_model(str(tmp_path / "bert"), pooling=pooling, max_length=8)
    model.save(tmp_path / "saved")
    opened = finetuner.load(tmp_path / "saved")
    assert opened.pooling == pooling
    assert np.array_equal(opened.encode(TEXTS), model.encode(TEXTS))
    opened.save(tmp_path / "again")
    assert np.array_equal(finetuner.load(tmp_path / "again").encode(TEXTS), model.encode(TEXTS))


def test_a_saved_model_opens_in_transformers(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    model = finetuner.build_model(str(tmp_path / "bert"), pooling="cls")
    model.save(tmp_path / "saved")
    network, tokenizer = (
        AutoModel.from_pretrained(tmp_path / "saved").eval(),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
    )
    with torch.inference_mode():
        states = network(**tokenizer(TEXTS, padding=True, return_tensors="pt")).last_hidden_state
    expected = torch.nn.functional.normalize(states[:, 0]).numpy()
    assert np.abs(model.encode(TEXTS) - expected).max() < 1e-5


def test_a_saved_model_is_json_and_safetensors_without_the_pooler(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIG, chat_template="{{ messages }}")
    assert (tmp_path / "bert" / "chat_template.jinja").is_file()
    finetuner.build_model(str(tmp_path / "bert")).save(tmp_path / "saved")
    assert {file.suffix for file in (tmp_path / "saved").rglob("*") if file.is_file()} == {
        ".json",
        ".md",
        ".safetensors",
    }
    assert not any("pooler" in name for name in load_file(tmp_path / "saved" / "model.safetensors"))


@pytest.mark.parametrize("kind", [None, BertForMaskedLM, BertForPreTraining])
def test_no_weight_is_new_where_only_the_pooler_is_missing(
    kind: type | None, tmp_path: Path, save_text_model: SaveModel
) -> None:
    network = save_text_model(tmp_path / "bert", CONFIG, kind)
    model = finetuner.build_model(str(tmp_path / "bert"))
    assert model.new_weights == []
    body = getattr(network, "bert", network)
    loaded = model.encoder("text").extractor.get_submodule("encoder")
    assert all(torch.equal(tensor, body.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_weights_that_the_checkpoint_lacks_are_named_in_order(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    file = tmp_path / "bert" / "model.safetensors"
    removed = ["encoder.layer.0.output.dense.weight", "encoder.layer.1.output.dense.bias", "pooler.dense.weight"]
    save_file({k: v for k, v in load_file(file).items() if k not in removed}, file, metadata={"format": "pt"})
    model = finetuner.build_model(str(tmp_path / "bert"))
    assert model.new_weights == [f"encoder.{name}" for name in removed[:2]]
    assert set(model.new_weights) <= {
        name.removeprefix("towers.0.encoders.text.extractor.") for name, _ in model.named_parameters()
    }


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_weights_that_cannot_be_read_are_two_lines_with_the_folder(
    damage: str, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    weights = tmp_path / "bert" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        tensors = load_file(weights)
        name = "encoder.layer.0.output.dense.weight"
        save_file(tensors | {name: tensors[name][:5].clone()}, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model(str(tmp_path / "bert"))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'bert'} cannot be loaded: ")
    assert second.startswith("Mend the folder")


def test_a_tokenizer_that_cannot_be_saved_as_json_is_refused_when_it_is_opened(
    tmp_path: Path, save_text_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", False)
    with pytest.raises(WeightsError, match=r"has no tokenizer\.json\n"):
        finetuner.build_model(str(tmp_path / "bert"))
