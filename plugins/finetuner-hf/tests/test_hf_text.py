"""How texts are read: how many tokens, what is left out, what an empty one becomes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)

import finetuner
from finetuner_core.errors import DataError, WeightsError
from finetuner_core.interfaces import TextPreprocess

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
T5: dict[str, Any] = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40
    ),
    "roberta": RobertaConfig(**SIZES | {"pad_token_id": 1}),
    "mpnet": MPNetConfig(**SIZES | {"pad_token_id": 1}),
}
TEXTS = [
    "a cat sits on the mat",
    "a kitten is sitting",
    "dog",
    "the quick brown fox jumps over the lazy dog and the dog sits on the mat with a cat",
    "",
]

SaveModel = Callable[..., PreTrainedModel]


def test_the_state_of_a_bert_is_that_of_a_bert_with_a_head(tmp_path: Path, save_text_model: SaveModel) -> None:
    with_head = save_text_model(tmp_path / "bert", CONFIGS["bert"], BertForMaskedLM)
    assert isinstance(with_head, BertForMaskedLM)
    model = finetuner.build_model(str(tmp_path / "bert"), pooling="cls")
    tokenizer = Tokenizer.from_file(str(tmp_path / "bert" / "tokenizer.json"))
    for text, vector in zip(TEXTS, model.encode(TEXTS), strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            first = with_head.bert(input_ids=ids).last_hidden_state[0, 0]
        assert np.abs(vector - torch.nn.functional.normalize(first, dim=0).numpy()).max() < 1e-5


@pytest.mark.parametrize(("kind", "limit"), [("bert", 40), ("distilbert", 40), ("roberta", 38), ("mpnet", 38)])
def test_a_long_text_is_cut_to_what_the_network_has_positions_for(
    kind: str, limit: int, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / kind, CONFIGS[kind])
    model = finetuner.build_model(str(tmp_path / kind))
    long = "cat " * 100
    assert [len(text.ids) for text in model.preprocess("text").prepare([long])] == [limit]
    # As many words as fit between the two special tokens give the same.
    assert np.abs(model.encode([long]) - model.encode(["cat " * (limit - 2)])).max() < 1e-6


def test_roberta_as_published_reads_512_of_its_514_positions(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = RobertaConfig(**SIZES | {"pad_token_id": 1, "max_position_embeddings": 514})
    save_text_model(tmp_path / "roberta", config)
    model = finetuner.build_model(str(tmp_path / "roberta"))
    assert len(model.preprocess("text").prepare(["cat " * 600])[0].ids) == 512
    assert np.isfinite(model.encode(["cat " * 600])).all()


@pytest.mark.parametrize(("asked", "tokenizers", "limit"), [(10, 40, 10), (None, 20, 20), (1000, 40, 40), (30, 20, 20)])
def test_max_length_is_what_is_asked_for_and_never_more_than_there_is(
    asked: int | None, tokenizers: int, limit: int, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"], model_max_length=tokenizers)
    model = finetuner.build_model(str(tmp_path / "bert"), max_length=asked)
    prepared = model.preprocess("text").prepare(["cat " * 100])[0].ids
    assert len(prepared) == limit
    tokenizer = Tokenizer.from_file(str(tmp_path / "bert" / "tokenizer.json"))
    assert (prepared[0], prepared[-1]) == (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]"))
    model.save(tmp_path / "saved")
    assert len(finetuner.load(tmp_path / "saved").preprocess("text").prepare(["cat " * 100])[0].ids) == limit


def test_the_length_of_what_is_prepared_is_its_tokens(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    preprocess = finetuner.build_model(str(tmp_path / "bert")).preprocess("text")
    assert [preprocess.length(item) for item in preprocess.prepare(["cat", "the cat", "xyz", ""])] == [3, 4, 5, 2]
    assert preprocess.prepare([]) == []


def test_a_prepared_text_knows_whether_its_end_is_missing(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    preprocess = finetuner.build_model(str(tmp_path / "bert"), max_length=6).preprocess("text")
    assert isinstance(preprocess, TextPreprocess)
    assert preprocess.max_length == 6
    preprocess = pickle.loads(pickle.dumps(preprocess))
    prepared = pickle.loads(
        pickle.dumps(preprocess.prepare(["", "cat", "the cat " * 2, "the cat " * 2 + "x", "cat " * 99]))
    )
    assert [preprocess.is_cut(text) for text in prepared] == [False, False, False, True, True]
    assert [preprocess.length(text) for text in prepared] == [2, 3, 6, 6, 6]


@pytest.mark.parametrize("template", ["$A", "$A [SEP]", "[CLS] $A", "[CLS] $A [SEP]"])
def test_an_empty_text_is_never_nothing(template: str, tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"], template=template)
    model = finetuner.build_model(str(tmp_path / "bert"))
    (empty,) = model.preprocess("text").prepare([""])
    assert len(empty.ids) == max(1, template.count("["))
    vectors = model.encode(["", "cat", ""])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors - model.encode(["", "cat", ""], batch_size=1)).max() < 1e-6


def test_a_tokenizer_of_sentencepiece_is_converted(tmp_path: Path) -> None:
    T5EncoderModel(T5Config(**T5)).save_pretrained(tmp_path / "t5")
    with (tmp_path / "t5" / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS[:4] * 20),
            model_writer=file,
            vocab_size=50,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "t5" / "spiece.model"))
    model = finetuner.build_model(str(tmp_path / "t5"))
    assert [text.ids for text in model.preprocess("text").prepare(TEXTS)] == [[*processor.encode(t), 1] for t in TEXTS]
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    assert np.array_equal(finetuner.load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize("content", ["{", "{}", '{"version": "1.0", "model": {"type": "Nothing"}}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(content: str, tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    (tmp_path / "bert" / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model(str(tmp_path / "bert"))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'bert'} cannot be loaded: ")
    assert second.startswith("Mend the folder")


def test_half_a_character_is_refused_with_the_text(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    with pytest.raises(DataError) as caught:
        finetuner.build_model(str(tmp_path / "bert")).encode(["dog", "a \ud83d cat"])
    first, second = str(caught.value).splitlines()
    assert first.startswith('"a \\ud83d cat" holds half of a character')
    assert second == "Write the text anew, as UTF-8."


def test_without_a_token_for_padding_it_is_masked_all_the_same(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=40, eos_token_id=3)
    save_text_model(tmp_path / "gpt2", config, template="$A")
    file = tmp_path / "gpt2" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["pad_token"]
    file.write_text(json.dumps(settings))
    model = finetuner.build_model(str(tmp_path / "gpt2"))
    assert np.abs(model.encode(TEXTS) - model.encode(TEXTS, batch_size=1)).max() < 1e-5


def test_a_network_without_a_limit_reads_all(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "t5", T5Config(**T5), T5EncoderModel, template="$A [SEP]")
    model = finetuner.build_model(str(tmp_path / "t5"))
    (prepared,) = model.preprocess("text").prepare(["cat " * 700])
    assert (len(prepared.ids), prepared.is_cut) == (701, False)
    model.save(tmp_path / "saved")
    assert len(finetuner.load(tmp_path / "saved").preprocess("text").prepare(["cat " * 700])[0].ids) == 701


def test_opt_projects_its_states_to_another_width(tmp_path: Path, save_text_model: SaveModel) -> None:
    # As facebook/opt-350m has it.
    config = OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=24, do_layer_norm_before=False)
    save_text_model(tmp_path / "opt", config)
    model = finetuner.build_model(str(tmp_path / "opt"))
    assert model.encode(TEXTS).shape == (5, 24)
    assert model.output_dim == model.info.output_dim == 24


def test_what_is_made_a_decoder_by_its_configuration_is_one(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", BertConfig(**SIZES, is_decoder=True))
    assert finetuner.build_model(str(tmp_path / "bert")).pooling == "last"
    both_ways: dict[str, Any] = {"is_causal": False}  # an attribute that any configuration may have
    save_text_model(tmp_path / "llama", LlamaConfig(**SIZES, **both_ways))
    assert finetuner.build_model(str(tmp_path / "llama")).pooling == "mean"


def test_without_pretrained_weights_they_are_others(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    pretrained = finetuner.build_model(str(tmp_path / "bert"))
    scratch = finetuner.build_model(str(tmp_path / "bert"), pretrained=False)
    assert scratch.output_dim == pretrained.output_dim
    assert np.abs(scratch.encode(TEXTS) - pretrained.encode(TEXTS)).max() > 0.01
