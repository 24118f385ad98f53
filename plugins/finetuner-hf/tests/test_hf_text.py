"""What text encoders emit, against transformers and loops over one text at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

import finetuner
from finetuner_core.interfaces import Stage

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
    "distilbert": DistilBertConfig(
        vocab_size=128, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40
    ),
    "roberta": RobertaConfig(**SIZES | {"pad_token_id": 1}),
    "mpnet": MPNetConfig(**SIZES | {"pad_token_id": 1}),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=40, eos_token_id=3, bos_token_id=2),
}
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
}


def hidden_states(folder: Path, texts: list[str], limit: int = 40) -> list[np.ndarray]:
    """The last hidden state of each text alone, (T, D): no padding, so no mask to get wrong."""
    network = AutoModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    with torch.inference_mode():
        return [
            network(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].numpy() for text in texts
        ]


def pooled(states: list[np.ndarray], pooling: str) -> np.ndarray:
    made = []
    for state in states:
        columns = [[float(row[column]) for row in state] for column in range(state.shape[1])]
        made.append([POOL[pooling](column) for column in columns])
    vectors = np.array(made)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, save_text_model: SaveModel) -> Path:
    """A folder with a small model of each kind."""
    path: Path = tmp_path / request.param
    save_text_model(path, CONFIGS[request.param])
    return path


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_an_embedding_is_the_pooled_hidden_state_of_the_text_alone(folder: Path, pooling: str) -> None:
    model = finetuner.build_model(str(folder), pooling=pooling)
    expected = pooled(hidden_states(folder, TEXTS), pooling)
    assert model.output_dim == model.info.output_dim == 32
    # All texts in one batch, of which all but one are padded.
    assert np.abs(model.encode(TEXTS) - expected).max() < 1e-5


def test_the_default_pooling_is_the_mean(folder: Path) -> None:
    assert finetuner.build_model(str(folder)).pooling == "mean"


def test_every_parameter_takes_part_and_the_pooler_is_gone(folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    model("text", model.preprocess("text").prepare(TEXTS))[:, 0].sum().backward()
    names = dict(model.named_parameters())
    assert [name for name, parameter in names.items() if parameter.grad is None] == []
    assert not any("pooler" in name for name in names)
    assert sum(parameter.numel() for parameter in names.values()) > 1000


def test_stages_partition_the_parameters_from_input_to_output(folder: Path) -> None:
    extractor = finetuner.build_model(str(folder)).encoder("text").extractor
    stages = extractor.stages()
    everything = [number for stage in stages for number in held(stage)]
    assert len(everything) == len(set(everything))
    assert set(everything) == {id(parameter) for parameter in extractor.parameters()}
    layers = 1 if folder.name == "albert" else 3  # ALBERT runs through one layer many times
    names = [stage.name for stage in stages]
    assert names[: layers + 1] == ["embeddings", *(f"layer {number}" for number in range(1, layers + 1))]
    ids = {id(parameter): name for name, parameter in extractor.named_parameters()}
    assert any("emb" in ids[number] or "wte" in ids[number] for number in held(stages[0]))
    assert not any("layer." in ids[number] or ".h." in ids[number] for number in held(stages[0]))


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


@pytest.mark.parametrize(("kind", "limit"), [("bert", 40), ("distilbert", 40), ("roberta", 38), ("mpnet", 38)])
def test_a_long_text_is_cut_to_what_the_network_has_positions_for(
    kind: str, limit: int, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / kind, CONFIGS[kind])
    model = finetuner.build_model(str(tmp_path / kind))
    long = "cat " * 100
    assert [len(text.ids) for text in model.preprocess("text").prepare([long])] == [limit]
    expected = pooled(hidden_states(tmp_path / kind, [long], limit), "mean")
    assert np.abs(model.encode([long]) - expected).max() < 1e-5


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


def test_without_pretrained_weights_they_are_others(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIGS["bert"])
    pretrained = finetuner.build_model(str(tmp_path / "bert"))
    scratch = finetuner.build_model(str(tmp_path / "bert"), pretrained=False)
    assert scratch.output_dim == pretrained.output_dim
    assert np.abs(scratch.encode(TEXTS) - pretrained.encode(TEXTS)).max() > 0.01
