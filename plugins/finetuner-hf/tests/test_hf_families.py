"""The families of text models, a small network of each: against transformers, one text at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    BloomConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    MT5Config,
    MT5EncoderModel,
    NomicBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
    RoFormerConfig,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
    XLMConfig,
    XLMRobertaConfig,
)

import finetuner
from finetuner_core.interfaces import Stage
from finetuner_core.plugin import TEXT_POOLINGS
from finetuner_hf import plugin
from finetuner_hf.text import TextNetwork

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
DECODER = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
T5: dict[str, Any] = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
T5 |= {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
# As microsoft/deberta-v3-base has it, but for the sizes.
DEBERTA: dict[str, Any] = {"relative_attention": True, "pos_att_type": "p2c|c2p", "max_relative_positions": -1}
DEBERTA |= {"position_biased_input": False, "type_vocab_size": 0}
BUCKETS: dict[str, Any] = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}
XLM: dict[str, Any] = {
    "n_words": 128,
    "pad_index": 0,
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 40,
}
CONVOLUTION: dict[str, Any] = {"conv_kernel_size": 3, "conv_act": "gelu"}

ENCODERS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40
    ),
    "roberta": RobertaConfig(**SIZES | {"pad_token_id": 1}),
    "xlm-roberta": XLMRobertaConfig(**SIZES | {"pad_token_id": 1}),
    "mpnet": MPNetConfig(**SIZES | {"pad_token_id": 1}),
    "deberta": DebertaConfig(**SIZES, **DEBERTA),
    "deberta-v3": DebertaV2Config(**SIZES, **DEBERTA, **BUCKETS),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "modernbert": ModernBertConfig(
        **SIZES | {"num_hidden_layers": 4}, local_attention=6, cls_token_id=2, sep_token_id=3, eos_token_id=3
    ),
    "nomic": NomicBertConfig(**SIZES),
    "roformer": RoFormerConfig(**SIZES),
    "xlm": XLMConfig(**XLM),
    "t5": T5Config(**T5),
    "mt5": MT5Config(**T5),
    "umt5": UMT5Config(**T5),
}
DECODERS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**DECODER),
    "llama": LlamaConfig(**DECODER),
    "mistral": MistralConfig(**DECODER, sliding_window=6),
    "gemma": GemmaConfig(**DECODER),
    "gemma2": Gemma2Config(**DECODER, sliding_window=6, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(**DECODER, sliding_window=6, query_pre_attn_scalar=8),
    "bloom": BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=40, eos_token_id=3, bos_token_id=2),
}
# Gemma 3 as EmbeddingGemma has it: a decoder that sees both ways.
BOTH_WAYS = {"gemma3-both-ways": Gemma3TextConfig(**DECODER, query_pre_attn_scalar=8, use_bidirectional_attention=True)}
CONFIGS = ENCODERS | DECODERS | BOTH_WAYS
T5_CLASSES: dict[str, Any] = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}
# How the tokenizers of the families end and begin a text.
TEMPLATES = dict.fromkeys(T5_CLASSES, "$A [SEP]") | {"llama": "[CLS] $A", "mistral": "$A", "gpt2": "$A"}
# Position embeddings whose number is that of a column cannot be padded on the left, unless padding is not computed.
ABSOLUTE = {"xlm", "roformer"}
TEXTS = [
    "a cat sits on the mat",
    "a kitten is sitting",
    "dog",
    "the quick brown fox jumps over the lazy dog and the dog sits on the mat with a cat",
    "",
]

SaveModel = Callable[..., PreTrainedModel]
POOL: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda column: sum(column) / len(column),
    "max": max,
    "cls": lambda column: column[0],
    "last": lambda column: column[-1],
    "weighted_mean": lambda column: sum(i * value for i, value in enumerate(column, 1)) / sum(range(len(column) + 1)),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, save_text_model: SaveModel
) -> Path:
    """A folder with a small model of each kind, whose tokenizer would pad on the left where decoders' do."""
    path = tmp_path_factory.mktemp("families") / str(request.param)
    settings = {"template": TEMPLATES[path.name]} if path.name in TEMPLATES else {}
    settings |= {"eos_token": "[SEP]", "padding_side": "right" if path.name in {*ENCODERS, "gpt2"} else "left"}
    save_text_model(path, CONFIGS[path.name], T5_CLASSES.get(path.name), **settings)
    return path


def open_alone(folder: Path) -> PreTrainedModel:
    """The network as transformers itself opens it."""
    kind: Any = T5_CLASSES.get(folder.name, AutoModel)
    network: PreTrainedModel = kind.from_pretrained(folder).eval()
    return network


def hidden_states(folder: Path, texts: list[str]) -> list[np.ndarray]:
    """The last hidden state of each text alone, (T, D): no padding, so no mask to get wrong."""
    network = open_alone(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(40)
    states = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids or [tokenizer.token_to_id("[SEP]")]])
            states.append(network(input_ids=ids).last_hidden_state[0].numpy())
    return states


def pooled(states: list[np.ndarray], pooling: str) -> np.ndarray:
    made = []
    for state in states:
        columns = [[float(row[column]) for row in state] for column in range(state.shape[1])]
        made.append([POOL[pooling](column) for column in columns])
    vectors = np.array(made)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_an_embedding_is_the_pooled_hidden_state_of_the_text_alone(folder: Path) -> None:
    states = hidden_states(folder, TEXTS)
    for pooling in POOL:
        if pooling == "cls" and folder.name in DECODERS:
            continue
        model = finetuner.build_model(str(folder), pooling=pooling)
        assert model.output_dim == model.info.output_dim == 32
        # All texts in one batch, of which all but one are padded.
        assert np.abs(model.encode(TEXTS) - pooled(states, pooling)).max() < 1e-5


def test_the_poolings_of_a_row_and_its_default(folder: Path) -> None:
    row = plugin.find_backbone(str(folder))
    assert row is not None
    if folder.name in DECODERS:
        # The first token of a causal network has seen nothing but itself.
        assert row.poolings[0] == "last"
        assert set(row.poolings) == set(TEXT_POOLINGS) - {"cls"}
    else:
        assert row.poolings == TEXT_POOLINGS
        assert row.poolings[0] == "mean"


def test_every_parameter_takes_part_with_every_pooling_and_the_row_counts_them(folder: Path) -> None:
    row = plugin.find_backbone(str(folder))
    assert row is not None
    for pooling in row.poolings:
        model = finetuner.build_model(str(folder), pooling=pooling)
        model("text", model.preprocess("text").prepare(TEXTS))[:, 0].sum().backward()
        extractor = model.encoder("text").extractor
        assert [name for name, parameter in extractor.named_parameters() if parameter.grad is None] == []
        assert not any(
            "pooler" in name or "decoder" in name or "lm_head" in name for name, _ in model.named_parameters()
        )
        assert sum(parameter.numel() for parameter in extractor.parameters()) == row.parameters


def test_the_side_of_the_padding_does_not_matter(folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    preprocess = model.preprocess("text")
    right = preprocess.collate(preprocess.prepare(TEXTS))
    assert right["attention_mask"][:, 0].all()
    lengths = right["attention_mask"].sum(1).tolist()
    left = {
        key: torch.stack([row.roll(len(row) - length) for row, length in zip(rows, lengths, strict=True)])
        for key, rows in right.items()
    }
    assert left["attention_mask"][:, -1].all()
    with torch.inference_mode():
        differ = (model.encoder("text")(left) - model.encoder("text")(right)).abs().max()
    if folder.name in ABSOLUTE:
        assert differ > 1e-3
    else:
        assert differ < 1e-5


def test_a_batch_is_its_texts_one_by_one_in_any_order(folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    together = model.encode(TEXTS)
    assert np.abs(model.encode(TEXTS, batch_size=1) - together).max() < 1e-5
    assert np.abs(model.encode(TEXTS[::-1])[::-1] - together).max() < 1e-5


def test_saved_and_loaded_it_is_the_same_and_others_open_it(folder: Path, tmp_path: Path) -> None:
    model = finetuner.build_model(str(folder))
    saved = tmp_path / folder.name
    model.save(saved)
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
    opened = finetuner.load(saved)
    assert opened.pooling == model.pooling
    vectors = model.encode(TEXTS)
    assert np.array_equal(opened.encode(TEXTS), vectors)
    assert np.abs(pooled(hidden_states(saved, TEXTS), model.pooling) - vectors).max() < 1e-5
    # That library cannot read an empty text for which the tokenizer has no token.
    library = SentenceTransformer(str(saved), device="cpu", local_files_only=True)
    assert np.abs(library.encode(TEXTS[:4], show_progress_bar=False) - vectors[:4]).max() < 1e-5
    # As a backbone its declared vector is the pooling that was chosen.
    (saved / "finetuner.json").unlink()
    native = finetuner.build_model(str(saved))
    assert native.pooling == "native"
    assert np.abs(native.encode(TEXTS) - vectors).max() < 1e-6


def test_stages_partition_the_parameters_from_input_to_output(folder: Path) -> None:
    extractor = finetuner.build_model(str(folder)).encoder("text").extractor
    stages = extractor.stages()
    everything = [number for stage in stages for number in held(stage)]
    assert set(everything) == {id(parameter) for parameter in extractor.parameters()}
    assert sum(len(set(held(stage))) for stage in stages) == len(set(everything)), "a parameter is in two stages"
    layers = {"albert": 1, "modernbert": 4}.get(folder.name, 2)  # ALBERT runs through one layer many times
    names = [stage.name for stage in stages]
    assert names[: layers + 1] == ["embeddings", *(f"layer {number}" for number in range(1, layers + 1))]
    ids = {id(parameter): name for name, parameter in extractor.named_parameters()}
    first = {ids[number] for number in held(stages[0])}
    assert any("emb" in name or "wte" in name or "shared" in name for name in first)
    for number in range(1, layers + 1):
        inner = {ids[held_by] for held_by in held(stages[number])}
        assert len(inner) > 4
        assert not any("emb" in name for name in inner)
    # What every layer reads comes before the first, wherever it is registered.
    shared = {"t5": "relative_attention_bias", "mt5": "relative_attention_bias", "mpnet": "relative_attention_bias"}
    shared |= {"deberta": "rel_embeddings", "deberta-v3": "rel_embeddings"}
    if folder.name in shared:
        assert sum(shared[folder.name] in name for name in first) == 1
    assert any("encoder.LayerNorm" in name for name in first) == (folder.name == "deberta-v3")


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


@pytest.mark.parametrize("whole", [False, True])
def test_of_a_t5_with_its_decoder_the_encoder_is_opened(
    whole: bool, tmp_path: Path, save_text_model: SaveModel
) -> None:
    kind = T5ForConditionalGeneration if whole else T5EncoderModel
    made = save_text_model(tmp_path / "t5", T5Config(**T5), kind, template="$A [SEP]")
    model = finetuner.build_model(str(tmp_path / "t5"))
    assert model.new_weights == []
    network = model.tower("text").loaded.network
    assert isinstance(network, TextNetwork)
    expected = {name: tensor for name, tensor in made.state_dict().items() if name.startswith(("encoder.", "shared."))}
    assert {name: tuple(tensor.shape) for name, tensor in network.encoder.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }
    assert all(torch.equal(network.encoder.state_dict()[name], tensor) for name, tensor in expected.items())


def test_no_padding_reaches_the_convolution_of_deberta_v2(tmp_path: Path, save_text_model: SaveModel) -> None:
    # As microsoft/deberta-v2-xlarge has it.
    config = DebertaV2Config(**SIZES, **DEBERTA, **BUCKETS, **CONVOLUTION)
    save_text_model(tmp_path / "deberta", config)
    model = finetuner.build_model(str(tmp_path / "deberta"))
    assert np.abs(model.encode(TEXTS) - model.encode(TEXTS, batch_size=1)).max() < 1e-5
    assert np.abs(model.encode(TEXTS) - pooled(hidden_states(tmp_path / "deberta", TEXTS), "mean")).max() < 1e-5
    stages = model.encoder("text").extractor.stages()
    extractor = model.encoder("text").extractor
    ids = {id(parameter): name for name, parameter in extractor.named_parameters()}
    assert any(".conv." in ids[number] for number in held(stages[1]))
