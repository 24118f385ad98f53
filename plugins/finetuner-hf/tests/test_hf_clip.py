"""CLIP's two towers, against transformers' own model, tokenizer and image processor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import finetuner
from finetuner_core.errors import OptionError
from finetuner_core.interfaces import Stage

TEXTS = ["a photo of a cat", "two dogs", "", "a long text about a cat and a dog and a house and a tree " * 4]
# As openai/clip-vit-base-patch32 has it, but for the size.
PROCESSOR = {
    "crop_size": 60,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 60,
}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with a small CLIP."""
    folder = tmp_path / "clip"
    symbols = sorted(ByteLevel.alphabet())
    pieces = [*symbols, *(f"{s}</w>" for s in symbols), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges: Any = [("c", "a"), ("ca", "t</w>")]  # transformers' annotation says texts, and it takes pairs
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=20).save_pretrained(folder)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    end = len(pieces) - 1
    config = CLIPConfig(
        text_config=sizes
        | {
            "vocab_size": len(pieces),
            "max_position_embeddings": 20,
            "eos_token_id": end,
            "bos_token_id": end - 1,
            "pad_token_id": end,
        },
        vision_config=sizes | {"hidden_size": 40, "image_size": 60, "patch_size": 20},
        projection_dim=24,
    )
    torch.manual_seed(0)
    network = CLIPModel(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors).numpy()


def image_features(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    network = CLIPModel.from_pretrained(folder).eval()  # type: ignore[no-untyped-call]
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        return unit(network.get_image_features(**processor(pictures, return_tensors="pt")).pooler_output)


def test_text_vectors_are_get_text_features(clip: Path) -> None:
    network = CLIPModel.from_pretrained(clip).eval()  # type: ignore[no-untyped-call]
    tokenizer = CLIPTokenizer.from_pretrained(clip)
    with torch.inference_mode():
        fed = tokenizer(TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt")
        expected = unit(network.get_text_features(**fed).pooler_output)
    model = finetuner.build_model(str(clip))
    assert model.modalities == ("text", "image")
    assert model.encode(TEXTS, modality="text").shape == (4, 24)
    assert np.abs(model.encode(TEXTS, modality="text") - expected).max() < 1e-5


def test_image_vectors_are_get_image_features(clip: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(str(clip))
    assert np.abs(model.encode(pictures, modality="image") - image_features(clip, pictures)).max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"shortest_edge": 75}, "crop_size": {"height": 60, "width": 60}},
        {"size": {"height": 60, "width": 60}, "do_center_crop": False},
        {"size": {"shortest_edge": 61}, "resample": 2},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.3]},
    ],
)
def test_the_processors_settings_are_followed(
    changes: dict[str, object], clip: Path, pictures: list[Image.Image]
) -> None:
    (clip / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | changes))
    model = finetuner.build_model(str(clip))
    preprocess = model.preprocess("image")
    expected = CLIPImageProcessorPil.from_pretrained(clip)(pictures, return_tensors="pt")["pixel_values"]
    pixels = preprocess.collate(preprocess.prepare(pictures))["pixels"]
    assert torch.allclose(pixels, expected, rtol=0, atol=1e-5)
    assert np.abs(model.encode(pictures, modality="image") - image_features(clip, pictures)).max() < 1e-5


def test_long_texts_are_cut_and_still_end(clip: Path) -> None:
    prepared = finetuner.build_model(str(clip), max_length=9).preprocess("text").prepare(TEXTS)
    end = CLIPTokenizer.from_pretrained(clip).eos_token_id
    assert max(len(text.ids) for text in prepared) == 9
    assert {text.ids[-1] for text in prepared} == {end}


def test_a_saved_model_opens_bit_by_bit_and_in_transformers(
    clip: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = finetuner.build_model(str(clip), max_length=9)
    saved = tmp_path / "saved"
    model.save(saved)
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
    opened = finetuner.load(saved)
    for items, modality in ((TEXTS, "text"), (pictures, "image")):
        assert np.array_equal(opened.encode(items, modality=modality), model.encode(items, modality=modality))  # type: ignore[arg-type]
    assert np.abs(image_features(saved, pictures) - model.encode(pictures, modality="image")).max() < 1e-5


def test_every_parameter_of_both_towers_takes_part(clip: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(str(clip))
    for modality, items in (("text", TEXTS), ("image", pictures)):
        model(modality, model.preprocess(modality).prepare(items))[:, 0].sum().backward()  # type: ignore[arg-type]
    names = dict(model.named_parameters())
    assert [name for name, parameter in names.items() if parameter.grad is None] == []
    assert not any("logit_scale" in name for name in names)
    assert model.new_weights == []


def test_stages_of_both_towers_partition_their_parameters(clip: Path) -> None:
    model = finetuner.build_model(str(clip))
    for modality in model.modalities:
        extractor = model.encoder(modality).extractor
        stages = extractor.stages()
        everything = [number for stage in stages for number in held(stage)]
        assert len(everything) == len(set(everything))
        assert set(everything) == {id(parameter) for parameter in extractor.parameters()}
        assert [stage.name for stage in stages] == ["embeddings", "layer 1", "layer 2", "output", "projection"]
        named = {id(parameter): name for name, parameter in extractor.named_parameters()}
        first = {named[number] for number in held(stages[0])}
        last = {named[number] for number in held(stages[-2])}
        assert {name.split(".")[-2] for name in last} == {
            "final_layer_norm" if modality == "text" else "post_layernorm"
        }
        assert any("position_embedding" in name for name in first)
        if modality == "image":
            assert any("class_embedding" in name for name in first)
            assert any("pre_layrnorm" in name for name in first)


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


def test_it_has_only_its_own_pooling_and_says_which_modality_is_missing(clip: Path) -> None:
    with pytest.raises(OptionError, match='does not support the pooling "mean"'):
        finetuner.build_model(str(clip), pooling="mean")
    with pytest.raises(OptionError, match="takes more than one modality"):
        finetuner.build_model(str(clip)).encode(TEXTS)


def test_a_repository_of_that_name_in_the_cache_opens(clip: Path, put_into_cache: Callable[[str], Path]) -> None:
    snapshot = put_into_cache("someone/small-clip")
    for file in clip.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    by_name, by_path = finetuner.build_model("hf/someone/small-clip"), finetuner.build_model(str(clip))
    assert np.array_equal(by_name.encode(TEXTS, modality="text"), by_path.encode(TEXTS, modality="text"))
