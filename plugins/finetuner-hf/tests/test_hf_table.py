"""The rows of the table at real size, by their exact names, from a cache as `hf download` leaves it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    DistilBertConfig,
    DistilBertModel,
)

import finetuner
from finetuner_hf import rows

TEXTS = ["a cat sits on the mat", "dog"]
PutIntoCache = Callable[[str], Path]


def write_weights(
    folder: Path, make: Callable[[], nn.Module], without: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """Random weights of a network, drawn without building it, as a repository holds them."""
    with torch.device("meta"):
        shapes = make().state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.empty(like.shape).normal_(std=0.02, generator=generator)
        for name, like in shapes.items()
        if like.is_floating_point() and name not in without
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def check(model: finetuner.EmbeddingModel, name: str, tensors: dict[str, torch.Tensor], prefix: str = "") -> None:
    """The weights are those of the cache, none is new, and the row's parameters are the model's."""
    row = next(row for row in rows.ROWS if row.name == name)
    used = {id(parameter) for parameter in model.parameters()}
    compared = 0
    for key, parameter in model.tower(model.modalities[0]).loaded.network.named_parameters():
        if id(parameter) in used:
            assert torch.equal(parameter, tensors[prefix + key.removeprefix("encoder.")]), key
            compared += parameter.numel()
    assert compared == sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    assert model.new_weights == []
    assert model.output_dim == row.output_dim
    assert model.pooling == row.poolings[0]


def test_bert_base_cased(put_into_cache: PutIntoCache, save_tokenizer: Callable[..., None]) -> None:
    folder = put_into_cache("bert-base-cased")
    config = BertConfig(vocab_size=28996)
    config.save_pretrained(folder)
    save_tokenizer(folder, 28996, model_max_length=512)
    # The published file holds both heads, and the tied matrix once.
    tied = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    tensors = write_weights(folder, lambda: BertForPreTraining(config), without=tied)
    model = finetuner.build_model("bert-base-cased")
    check(model, "bert-base-cased", tensors, prefix="bert.")
    assert model.encode(TEXTS).shape == (2, 768)
    assert len(model.preprocess("text").prepare(["cat " * 600])[0].ids) == 512


def test_msmarco_distilbert(put_into_cache: PutIntoCache, save_tokenizer: Callable[..., None]) -> None:
    name = "sentence-transformers/msmarco-distilbert-base-v3"
    folder = put_into_cache(name)
    config = DistilBertConfig(vocab_size=30522)
    config.save_pretrained(folder)
    save_tokenizer(folder, 30522, model_max_length=512)
    tensors = write_weights(folder, lambda: DistilBertModel(config))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 510, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 768, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    model = finetuner.build_model(name)
    check(model, name, tensors)
    assert model.encode(TEXTS).shape == (2, 768)
    assert len(model.preprocess("text").prepare(["cat " * 600])[0].ids) == 510


def test_clip(put_into_cache: PutIntoCache, pictures: list[Image.Image]) -> None:
    name = "openai/clip-vit-base-patch32"
    folder = put_into_cache(name)
    config = CLIPConfig(projection_dim=512)
    config.save_pretrained(folder)
    symbols = sorted(ByteLevel.alphabet())
    pairs = list(itertools.islice(itertools.product(symbols, symbols), 49408 - 512 - 2))
    pieces = [*symbols, *(f"{s}</w>" for s in symbols), *(f"{a}{b}</w>" for a, b in pairs)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = [(a, f"{b}</w>") for a, b in pairs]  # transformers' annotation says texts, and it takes pairs
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]))
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    processor = {"size": 224, "crop_size": 224, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    tensors = write_weights(folder, lambda: CLIPModel(config))
    model = finetuner.build_model(name)
    check(model, name, tensors)
    texts, images = model.encode(TEXTS, modality="text"), model.encode(pictures[:1], modality="image")
    assert (texts.shape, images.shape) == ((2, 512), (1, 512))
    assert np.isfinite(texts).all()
    assert np.isfinite(images).all()
    assert len(model.preprocess("text").prepare(["cat " * 600])[0].ids) == 77
    with torch.inference_mode():
        tower = model.tower(model.modalities[0]).loaded.network.eval()
        assert isinstance(tower, CLIPModel)
        fed = model.preprocess("image").collate(model.preprocess("image").prepare(pictures[:1]))["pixels"]
        expected = nn.functional.normalize(tower.get_image_features(pixel_values=fed).pooler_output).numpy()
    assert np.abs(images - expected).max() < 1e-5
