"""A saved folder is a model of sentence-transformers, projections included, and its card says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, PreTrainedModel

import finetuner
from finetuner_core.artifacts.card import PLACE
from finetuner_core.modeling.embedding_model import EmbeddingModel

sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
TEXTS = ["a cat sits on the mat", "dog", "the quick brown fox jumps over the lazy dog", "a kitten is sitting"]

SaveModel = Callable[..., PreTrainedModel]


@pytest.fixture
def bert(tmp_path: Path, save_text_model: SaveModel) -> str:
    save_text_model(tmp_path / "bert", BertConfig(**SIZES))
    return str(tmp_path / "bert")


def theirs(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def projected(model: EmbeddingModel) -> EmbeddingModel:
    """A model whose projection has a bias that matters."""
    layer = model.encoder("text").projection
    assert layer is not None
    torch.nn.init.normal_(layer.bias, std=0.3)
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last", "weighted_mean"])
def test_a_projection_is_a_dense_layer_of_theirs(pooling: str, bert: str, tmp_path: Path) -> None:
    model = projected(finetuner.build_model(bert, pooling=pooling, output_dim=12))
    expected = model.encode(TEXTS)
    model.save(tmp_path / "saved")
    assert np.abs(theirs(tmp_path / "saved").encode(TEXTS) - expected).max() <= 1e-6
    # Opened and saved again it is the same, here and there.
    again = finetuner.load(tmp_path / "saved")
    again.save(tmp_path / "again")
    assert np.array_equal(finetuner.load(tmp_path / "again").encode(TEXTS), expected)
    assert np.abs(theirs(tmp_path / "again").encode(TEXTS) - expected).max() <= 1e-6
    # Where Finetuner's own description is not, as on the Hub, the folder is what it declares, once.
    (tmp_path / "again" / "finetuner.json").unlink()
    declared = finetuner.build_model(str(tmp_path / "again"))
    assert declared.output_dim == 12
    assert np.abs(declared.encode(TEXTS) - expected).max() <= 1e-6


@pytest.mark.parametrize("truncate_dim", [None, 20])
def test_a_projection_behind_what_they_declared(truncate_dim: int | None, bert: str, tmp_path: Path) -> None:
    modules = sentence_transformers.sentence_transformer.modules
    torch.manual_seed(1)
    behind = (modules.Pooling(32, "mean"), modules.Dense(32, 24), modules.Normalize())
    made = sentence_transformers.SentenceTransformer(
        modules=[modules.Transformer(bert), *behind], device="cpu", truncate_dim=truncate_dim
    )
    made.save(str(tmp_path / "st"), create_model_card=False)
    model = projected(finetuner.build_model(str(tmp_path / "st"), output_dim=10, query_prompt="cat "))
    expected = {side: model.encode(TEXTS, side=side) for side in ("query", "document")}
    for name in ("saved", "again"):
        model.save(tmp_path / name)
        opened = theirs(tmp_path / name)
        assert np.abs(opened.encode_query(TEXTS) - expected["query"]).max() <= 1e-6
        assert np.abs(opened.encode_document(TEXTS) - expected["document"]).max() <= 1e-6
        model = finetuner.load(tmp_path / name)
        assert np.array_equal(model.encode(TEXTS, side="query"), expected["query"])


def test_first_numbers_as_they_take_them(bert: str, tmp_path: Path) -> None:
    model = finetuner.build_model(bert, pooling="mean", output_dim=24)
    model.save(tmp_path / "saved")
    found = theirs(tmp_path / "saved").encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    assert np.abs(found - model.encode(TEXTS, width=8)).max() <= 1e-6


def test_the_card_has_what_the_hub_reads(bert: str, tmp_path: Path) -> None:
    folder = finetuner.build_model(bert, output_dim=12).save(tmp_path / "saved")
    text = (folder / "README.md").read_text("utf-8")
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["library_name"] == "sentence-transformers"
    assert metadata["pipeline_tag"] == "sentence-similarity"
    assert "finetuner" in metadata["tags"]
    assert f'SentenceTransformer("{PLACE}")' in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("pooling", ["gem", "attention"])
def test_a_pooling_that_they_have_no_word_for_is_said(pooling: str, bert: str, tmp_path: Path) -> None:
    folder = finetuner.build_model(bert, pooling=pooling, output_dim=12).save(tmp_path / "saved")
    text = (folder / "README.md").read_text("utf-8")
    assert f"sentence-transformers has no pooling {pooling}" in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"
    assert not (folder / "modules.json").exists()


def test_only_their_own_modules_are_named(bert: str, tmp_path: Path) -> None:
    folder = finetuner.build_model(bert, output_dim=12).save(tmp_path / "saved")
    kinds = [module["type"].rpartition(".")[2] for module in json.loads((folder / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Dense", "Normalize"]
