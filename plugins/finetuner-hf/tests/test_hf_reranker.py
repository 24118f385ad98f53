"""Cross-encoders: the scores are those of sentence-transformers, and what gives none is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from finetuner_core.errors import UnknownNameError, WeightsError
from finetuner_core.mining.rerank import load_cross_encoder

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
QUERIES = ["a cat", "dog", "", "the quick brown fox", "a cat " * 30, "mat"]
DOCUMENTS = ["a cat sits on the mat", "the lazy dog " * 30, "fox", "", "the dog sits " * 2, "Mat"]

SaveModel = Callable[..., PreTrainedModel]


@pytest.fixture
def folder(tmp_path: Path, save_text_model: SaveModel) -> Path:
    """A small BERT that gives one score."""
    save_text_model(tmp_path / "bert", BertConfig(**SIZES, id2label={0: "score"}), BertForSequenceClassification)
    return tmp_path / "bert"


def edit(folder: Path, file: str, **settings: object) -> None:
    content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**content, **settings}))


def declare(folder: Path, file: str, **settings: object) -> None:
    """As sentence-transformers does, which reads its other files only beside modules.json."""
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    reading = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    reading["modality_config"] = {"text": {"method": "forward", "method_output_name": "logits"}}  # type: ignore[assignment]
    edit(folder, "sentence_bert_config.json", **reading)
    edit(folder, "config_sentence_transformers.json", model_type="CrossEncoder", prompts={}, default_prompt_name=None)
    edit(folder, file, **settings)


def assert_scores_are_theirs(folder: Path) -> np.ndarray:
    theirs = CrossEncoder(str(folder), device="cpu").predict(list(zip(QUERIES, DOCUMENTS, strict=True)), batch_size=4)
    ours = load_cross_encoder(str(folder)).score(QUERIES, DOCUMENTS, batch_size=3)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=1e-5)
    assert ours.std() > 1e-4
    scores: np.ndarray = ours.detach().numpy()
    return scores


@pytest.mark.parametrize(
    "activation", [None, "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"]
)
@pytest.mark.parametrize("place", ["theirs", "config", "legacy"])
def test_scores_are_those_of_sentence_transformers(folder: Path, activation: str | None, place: str) -> None:
    if activation is not None and place == "theirs":
        declare(folder, "config_sentence_transformers.json", activation_fn=activation)
    elif activation is not None and place == "config":
        edit(folder, "config.json", sentence_transformers={"activation_fn": activation})
    elif activation is not None:
        edit(folder, "config.json", sbert_ce_default_activation_function=activation)
    scores = assert_scores_are_theirs(folder)
    assert ((scores > 0) & (scores < 1)).all() == (activation is None or "Sigmoid" in activation)


def test_a_folder_that_sentence_transformers_has_saved(folder: Path, tmp_path: Path) -> None:
    CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(
        str(tmp_path / "saved"), create_model_card=False
    )
    logits = torch.from_numpy(assert_scores_are_theirs(tmp_path / "saved"))
    np.testing.assert_allclose(logits.sigmoid().numpy(), assert_scores_are_theirs(folder), rtol=0, atol=1e-5)


def test_another_architecture(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = RobertaConfig(**SIZES, id2label={0: "score"})
    save_text_model(tmp_path / "roberta", config, RobertaForSequenceClassification, model_max_length=30)
    assert_scores_are_theirs(tmp_path / "roberta")


def test_how_many_tokens_are_read_is_declared(folder: Path) -> None:
    before = assert_scores_are_theirs(folder)
    declare(folder, "sentence_bert_config.json", max_seq_length=8)
    assert not np.allclose(assert_scores_are_theirs(folder), before)


def test_it_is_found_by_its_name(folder: Path, put_into_cache: Callable[[str], Path]) -> None:
    snapshot = put_into_cache("acme/reranker")
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    expected = load_cross_encoder(str(folder)).score(QUERIES, DOCUMENTS, 8)
    for name in ("hf/acme/reranker", "acme/reranker"):
        torch.testing.assert_close(load_cross_encoder(name).score(QUERIES, DOCUMENTS, 8), expected, rtol=0, atol=0)


def test_a_network_with_more_scores_is_refused(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = BertConfig(**SIZES, id2label={0: "contradiction", 1: "entailment", 2: "neutral"})
    save_text_model(tmp_path / "nli", config, BertForSequenceClassification)
    with pytest.raises(WeightsError, match=r"gives 3 scores for each pair \(contradiction, entailment, neutral\)"):
        load_cross_encoder(str(tmp_path / "nli"))


def test_a_network_without_a_head_is_refused(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", BertConfig(**SIZES))
    with pytest.raises(WeightsError, match="is a BertModel, not a cross-encoder"):
        load_cross_encoder(str(tmp_path / "bert"))
    edit(tmp_path / "bert", "config.json", architectures=["BertForSequenceClassification"], num_labels=1)
    with pytest.raises(WeightsError, match=r"holds no weights for classifier\.bias"):
        load_cross_encoder(str(tmp_path / "bert"))


@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("config.json", {"sbert_ce_default_activation_function": "acme.Own"}, 'the activation "acme.Own"'),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Tanh"}, 'the activation "torch.nn.Tanh"'),
        ("config_sentence_transformers.json", {"default_prompt_name": "web"}, 'the prompt "web"'),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lower case"),
        ("config.json", {"auto_map": {"AutoModel": "own.Own"}}, "brings Python code of its own"),
    ],
)
def test_what_is_declared_and_not_computed_is_refused(
    folder: Path, file: str, settings: dict[str, object], expected: str
) -> None:
    declare(folder, file, **settings)
    with pytest.raises(WeightsError, match=expected):
        load_cross_encoder(str(folder))


def test_modules_behind_the_network_are_refused(folder: Path) -> None:
    modules = [{"idx": 0, "type": "a.Transformer", "path": ""}, {"idx": 1, "type": "a.LogitScore", "path": "1"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(WeightsError, match="puts LogitScore behind its network"):
        load_cross_encoder(str(folder))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hf/acme/gone is not in the local cache"):
        load_cross_encoder("hf/acme/gone")
    with pytest.raises(UnknownNameError, match="No plugin opens"):
        load_cross_encoder(str(tmp_path))
