"""Relatives of CLIP, against what transformers' own networks, tokenizers and image processors give."""

from __future__ import annotations

import io
import itertools
import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    GemmaTokenizer,
    PreTrainedModel,
    Siglip2Tokenizer,
    SiglipTokenizer,
    XLMRobertaTokenizer,
)

import finetuner
from finetuner_core.errors import OptionError, WeightsError
from finetuner_core.interfaces import Stage, TextPreprocess
from finetuner_hf.siglip import read_siglip_tokenizer

TEXTS = [
    "a photo of a cat",
    "Two DOGS, running!",
    "",
    "a",
    "a long text about a cat and a dog and a house and a tree " * 3,
]
WORDS = tuple("a cat dog dogs photo of the house tree running two long text about and jumps sits mat".split())  # noqa: SIM905
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
LENGTH = 16


def write_bert(folder: Path) -> dict[str, int]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *WORDS, ",", "!"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    BertTokenizer(vocab=vocabulary, model_max_length=LENGTH).save_pretrained(folder)
    return {"vocab_size": len(vocabulary), "max_position_embeddings": 64, "pad_token_id": 0}


def write_xlm_roberta(folder: Path) -> dict[str, int]:
    pieces = [(word, -1.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces += [(f"▁{word}", -3.0) for word in WORDS] + [(letter, -8.0) for letter in (*string.printable, "▁")]
    pieces = list(dict(pieces).items())
    pieces.append(("<mask>", 0.0))
    tokenizer = XLMRobertaTokenizer(vocab=pieces, model_max_length=512)
    tokenizer.save_pretrained(folder)
    return {
        "vocab_size": len(pieces),
        # The positions begin behind that of the padding: two fewer tokens have one.
        "max_position_embeddings": LENGTH + 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }


def write_metaclip(folder: Path) -> dict[str, int]:
    return write_xlm_roberta(folder) | {"max_position_embeddings": LENGTH}


def write_siglip(folder: Path) -> dict[str, int]:
    generator = random.Random(0)
    texts = (" ".join(generator.choices([*WORDS, "naïve", "ﬁne", "北京"], k=8)) for _ in range(300))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    SiglipTokenizer(str(folder / "spiece.model"), model_max_length=LENGTH).save_pretrained(folder)
    return {"vocab_size": 80, "max_position_embeddings": LENGTH}


def gemma(kind: Callable[..., Any], folder: Path) -> dict[str, int]:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = dict.fromkeys((*special, *string.printable, "▁", "ca", "cat", "do", "dog"))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("c", "a"), ("ca", "t"), ("d", "o"), ("do", "g")]
    # In the published form the end stands behind each text and nothing before it.
    settings = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "model_max_length": 10**9}
    kind(vocab=vocabulary, merges=merges, **settings).save_pretrained(folder)
    return {"vocab_size": len(vocabulary), "max_position_embeddings": LENGTH, "pad_token_id": 0, "eos_token_id": 1}


def write_gemma(folder: Path) -> dict[str, int]:
    return gemma(GemmaTokenizer, folder)


def write_siglip2(folder: Path) -> dict[str, int]:
    return gemma(Siglip2Tokenizer, folder)


IMAGE_PROCESSOR: Any = transformers.AutoImageProcessor
CROP: dict[str, object] = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 37}, "crop_size": 32}
SQUARE: dict[str, object] = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
NAFLEX: dict[str, object] = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 20}
Family = tuple[str, Callable[[Path], dict[str, int]], dict[str, object], dict[str, object]]
FAMILIES: dict[str, Family] = {
    "metaclip_2": ("MetaClip2", write_metaclip, CROP, {}),
    "chinese_clip": ("ChineseCLIP", write_bert, CROP | {"image_processor_type": "ChineseCLIPImageProcessor"}, {}),
    "altclip": ("AltCLIP", write_xlm_roberta, CROP, {"project_dim": 20}),
    "siglip": ("Siglip", write_siglip, SQUARE, {}),
    "siglip_2": ("Siglip", write_gemma, SQUARE, {"projection_size": 32}),
    "siglip_2_naflex": ("Siglip2", write_siglip2, NAFLEX, {}),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    return make(family, tmp_path / "model")


def make(family: str, folder: Path) -> Path:
    """Writes a small model of a family, in the layout of its repositories."""
    kind, write_tokenizer, processor, more = FAMILIES[family]
    text_config = SIZES | write_tokenizer(folder) | more
    vision = VISION | ({"num_patches": 16} if kind == "Siglip2" else {})
    if kind == "Siglip2":
        del vision["image_size"]
    width = {} if kind.startswith("Siglip") else {"projection_dim": 24}
    config = getattr(transformers, f"{kind}Config")(text_config=text_config, vision_config=vision, **width)
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}Model")(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def library(folder: Path) -> Any:
    network: PreTrainedModel = AutoModel.from_pretrained(folder).eval()
    return network


def text_features(folder: Path, family: str) -> np.ndarray:
    if family.startswith("siglip"):
        kind = SiglipTokenizer if family == "siglip" else Siglip2Tokenizer
        # As its processors are to be called: all texts of one length, and nothing masked.
        settings = {"padding": "max_length", "return_attention_mask": False}
        tokenizer = kind.from_pretrained(folder)
    else:
        settings = {"padding": True}
        tokenizer = AutoTokenizer.from_pretrained(folder)
    fed = tokenizer(TEXTS, truncation=True, max_length=LENGTH, return_tensors="pt", **settings)
    with torch.inference_mode():
        return unit(library(folder).get_text_features(**fed).pooler_output)


def image_features(folder: Path, pictures: list[Image.Image], **settings: object) -> np.ndarray:
    processor = IMAGE_PROCESSOR.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        fed = processor(pictures, return_tensors="pt")
        return unit(library(folder).get_image_features(**fed, **settings).pooler_output)


def unit(vectors: Tensor) -> np.ndarray:
    return nn.functional.normalize(vectors).numpy()


def check_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-5
    assert (vectors * expected).sum(1).min() >= 0.99999
    assert len(np.unique(vectors.round(4), axis=0)) == len(vectors)


def test_texts_are_get_text_features(family: str, folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    check_same(model.encode(TEXTS, modality="text"), text_features(folder, family))
    assert model.info.output_dim == model.output_dim


def test_images_are_get_image_features(folder: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(str(folder))
    check_same(model.encode(pictures, modality="image"), image_features(folder, pictures))


def test_the_order_and_the_other_texts_do_not_matter(folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    together = model.encode(TEXTS, modality="text")
    alone = np.concatenate([model.encode([text], modality="text") for text in reversed(TEXTS)])[::-1]
    assert np.abs(together - alone).max() < 1e-5


def test_long_texts_are_cut_and_counted(family: str, folder: Path) -> None:
    preprocess = finetuner.build_model(str(folder)).preprocess("text")
    assert isinstance(preprocess, TextPreprocess)
    assert preprocess.max_length == LENGTH
    assert [preprocess.is_cut(text) for text in preprocess.prepare(TEXTS)][-1]
    ids = preprocess.collate(preprocess.prepare(TEXTS[:1]))["input_ids"]
    assert (ids.shape[1] == LENGTH) == family.startswith("siglip")


def test_a_saved_model_opens_bit_by_bit_and_in_transformers(
    family: str, folder: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model, saved = finetuner.build_model(str(folder)), tmp_path / "saved"
    model.save(saved)
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
    opened = finetuner.load(saved)
    for items, modality in ((TEXTS, "text"), (pictures, "image")):
        assert np.array_equal(opened.encode(items, modality=modality), model.encode(items, modality=modality))  # type: ignore[arg-type]
    check_same(model.encode(pictures, modality="image"), image_features(saved, pictures))
    assert opened.preprocess("text").max_length == LENGTH  # type: ignore[attr-defined]
    # A second time, what was added to the tokenizer stands in it already.
    opened.save(tmp_path / "again")
    again = finetuner.load(tmp_path / "again")
    assert np.array_equal(again.encode(TEXTS, modality="text"), model.encode(TEXTS, modality="text"))


def test_every_parameter_of_both_towers_takes_part(folder: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(str(folder))
    for modality, items in (("text", TEXTS), ("image", pictures)):
        vectors = model(modality, model.preprocess(modality).prepare(items))  # type: ignore[arg-type]
        (vectors * torch.randn_like(vectors)).sum().backward()
    names = dict(model.named_parameters())
    assert [name for name, parameter in names.items() if parameter.grad is None] == []
    assert not any("logit" in name for name in names)
    assert model.new_weights == []


def test_stages_of_both_towers_partition_their_parameters(family: str, folder: Path) -> None:
    model = finetuner.build_model(str(folder))
    for modality in model.modalities:
        extractor = model.encoder(modality).extractor
        stages = extractor.stages()
        everything = [number for stage in stages for number in held(stage)]
        assert len(everything) == len(set(everything))
        assert set(everything) == {id(parameter) for parameter in extractor.parameters()}
        names = [stage.name for stage in stages]
        assert names[:3] == ["embeddings", "layer 1", "layer 2"]
        assert ("projection" in names) != family.startswith("siglip")


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


def test_another_size_of_images(family: str, folder: Path, tmp_path: Path, pictures: list[Image.Image]) -> None:
    if family == "siglip_2_naflex":
        with pytest.raises(OptionError, match='has no option "image_size"'):
            finetuner.build_model(str(folder), image_size=48)
        return
    model = finetuner.build_model(str(folder), image_size=48)
    model.save(tmp_path / "saved")
    vectors = model.encode(pictures, modality="image")
    check_same(vectors, image_features(tmp_path / "saved", pictures, interpolate_pos_encoding=True))
    assert np.array_equal(finetuner.load(tmp_path / "saved").encode(pictures, modality="image"), vectors)
    with pytest.raises(OptionError, match="it cuts them into patches of 8 pixels"):
        finetuner.build_model(str(folder), image_size=33)


def test_siglip_has_one_length_of_texts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match='has no option "max_length"'):
        finetuner.build_model(str(make("siglip", tmp_path / "model")), max_length=8)


def test_siglips_tokenizer_as_json_is_its_own(tmp_path: Path) -> None:
    folder = make("siglip", tmp_path / "model")
    own, made = SiglipTokenizer.from_pretrained(folder), read_siglip_tokenizer(str(folder))
    generator = random.Random(0)
    letters = string.ascii_letters + string.punctuation + "   \t\nü北ﬁ▁—"
    texts = ["".join(generator.choices(letters, k=length)) for length in range(200)]
    texts += [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 4), 0, 40000, 200)]
    for text in (*TEXTS, "  ", "!?", "It's naïve—ﬁne", *texts):
        assert made(text)["input_ids"] == own(text)["input_ids"], text
    assert (made.pad_token_id, made.eos_token_id) == (own.pad_token_id, own.eos_token_id)


def test_what_siglips_tokenizer_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("siglip", tmp_path / "model")
    finetuner.build_model(str(folder)).save(tmp_path / "saved")
    monkeypatch.setattr("transformers.tokenization_utils_sentencepiece.requires_backends", missing)
    monkeypatch.setattr("transformers.models.siglip.tokenization_siglip.requires_backends", missing)
    with pytest.raises(WeightsError, match="Run: pip install sentencepiece protobuf"):
        finetuner.build_model(str(folder))
    assert finetuner.load(tmp_path / "saved").encode(TEXTS, modality="text").shape == (5, 32)


def missing(*arguments: object) -> None:
    raise ImportError(arguments[-1])


def test_siglip_2_reads_texts_in_lower_case(tmp_path: Path) -> None:
    for family in ("siglip_2", "siglip_2_naflex"):
        model = finetuner.build_model(str(make(family, tmp_path / family)))
        upper, lower = model.encode(["A CAT", "a cat"], modality="text")
        assert np.array_equal(upper, lower)


def test_naflex_keeps_the_shape_of_an_image(tmp_path: Path, pictures: list[Image.Image]) -> None:
    folder = make("siglip_2_naflex", tmp_path / "model")
    preprocess = finetuner.build_model(str(folder)).preprocess("image")
    expected = IMAGE_PROCESSOR.from_pretrained(folder, backend="pil")(pictures, return_tensors="pt")
    batch = preprocess.collate(preprocess.prepare(pictures))
    assert torch.allclose(batch["pixels"], expected["pixel_values"], rtol=0, atol=1e-5)
    assert torch.equal(batch["pixel_attention_mask"].int(), expected["pixel_attention_mask"].int())
    assert torch.equal(batch["spatial_shapes"], expected["spatial_shapes"])
    # What augmentation makes of an image is a square.
    side = preprocess.image_size[0]  # type: ignore[attr-defined]
    square = preprocess.collate([torch.zeros(3, side, side, dtype=torch.uint8)])
    assert square["spatial_shapes"].tolist() == [[4, 4]]


def test_naflex_reads_a_large_photo_of_a_file_in_the_same_shape(tmp_path: Path, pictures: list[Image.Image]) -> None:
    preprocess = finetuner.build_model(str(make("siglip_2_naflex", tmp_path / "model"))).preprocess("image")
    path = tmp_path / "a.jpg"
    pictures[3].resize((1283, 857), Image.Resampling.BICUBIC).save(path, quality=90)
    with Image.open(path) as whole:
        whole.load()
        ours, theirs = preprocess.prepare([path, whole])
    assert ours.shape == theirs.shape
    assert 0 < (ours.float() - theirs.float()).square().mean() < 2  # 45 dB


def test_siglip_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = make("siglip", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["vision_use_head"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="without the head that makes one vector") as caught:
        finetuner.build_model(str(folder))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "reason"), [("clipseg", "does not open"), ("owlvit", "it says what is where"), ("blip", "does not open")]
)
def test_other_relatives_are_refused(kind: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(WeightsError, match=reason) as caught:
        finetuner.build_model(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2
