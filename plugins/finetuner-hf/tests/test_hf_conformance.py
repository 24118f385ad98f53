"""The conformance kit, over a small model of each kind, each in the Hub cache of the tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finetuner
from finetuner_core.modeling import lora
from finetuner_core.testing import Check, checks_for
from finetuner_core.testing.samples import TEXTS, picture
from finetuner_core.values import resolve_options

# transformers is imported in functions: the conftest has to be read before it, and collecting costs nothing.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DEBERTA: dict[str, Any] = {"relative_attention": True, "pos_att_type": "p2c|c2p", "position_biased_input": False}
DECODER = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "eos_token_id": 3}
VISION = {name: SIZES[name] for name in SIZES if name != "max_position_embeddings"} | {
    "image_size": 32,
    "patch_size": 8,
}
CNN: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}
BACKBONES: Mapping[str, Mapping[str, object]] = {
    "tests/bert": {"query_prompt": "the dog "},
    "tests/deberta": {},
    "tests/qwen3": {},
    "tests/t5": {},
    "tests/vit": {},
    "tests/convnext": {},
    "tests/clip": {},
}


@pytest.fixture(scope="module", autouse=True)
def _repositories(save_text_model: Callable[..., object], save_tokenizer: Callable[..., None]) -> Iterator[None]:
    """Writes each model where a download would have put it."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from transformers import (
        BertConfig,
        CLIPConfig,
        CLIPModel,
        ConvNextConfig,
        ConvNextModel,
        DebertaConfig,
        Qwen3Config,
        T5Config,
        T5EncoderModel,
        ViTConfig,
        ViTForImageClassification,
    )

    made: list[Path] = []

    def repository(name: str) -> Path:
        folder = Path(HF_HUB_CACHE) / f"models--tests--{name}"
        made.append(folder)
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        # What a download notes of a file that the repository does not have.
        absent = folder / ".no_exist" / snapshot.name
        absent.mkdir(parents=True)
        (absent / "modules.json").touch()
        return snapshot

    def processor(folder: Path, kind: str, **settings: object) -> None:
        content = {"image_processor_type": f"{kind}ImageProcessor", **settings}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))

    torch.manual_seed(0)
    square = {"size": {"height": 32, "width": 32}}
    save_text_model(repository("bert"), BertConfig(vocab_size=128, **SIZES))
    save_text_model(repository("deberta"), DebertaConfig(vocab_size=128, **SIZES, **DEBERTA))
    save_text_model(repository("qwen3"), Qwen3Config(vocab_size=128, pad_token_id=0, **DECODER), template="$A [SEP]")
    save_text_model(repository("t5"), T5Config(vocab_size=128, **T5), T5EncoderModel, template="$A [SEP]")
    ViTForImageClassification(ViTConfig(**VISION)).save_pretrained(vit := repository("vit"))
    processor(vit, "ViT", **square)
    ConvNextModel(ConvNextConfig(**CNN)).save_pretrained(convnext := repository("convnext"))
    processor(convnext, "ConvNext", size={"shortest_edge": 32}, crop_pct=0.875)
    text = SIZES | {"vocab_size": 128, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)).save_pretrained(
        clip := repository("clip")
    )
    save_tokenizer(clip, 128, model_max_length=40)
    processor(clip, "CLIP", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    yield
    for folder in made:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "check",
    checks_for(
        "hf",
        backbones=BACKBONES,
        expected_failures={"tests/deberta-bf16": "transformers masks its scores in bfloat16 with a float32's minimum"},
    ),
)
def test_conformance(check: Check) -> None:
    check()


@pytest.mark.parametrize("name", BACKBONES)
def test_lora_reaches_every_layer_and_is_saved_either_way(name: str, tmp_path: Path) -> None:
    model = finetuner.build_model(f"hf/{name}")
    (tower,) = (tower for _, tower in model.sided_towers())
    lora.inject(tower.encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    matrices = {path: matrix for path, matrix in model.named_parameters() if lora.is_matrix(path)}
    assert len(matrices) >= 8
    with torch.no_grad():
        for number, matrix in enumerate(matrices.values()):
            matrix.copy_(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(number)) * 0.2)
    items: dict[str, Any] = {"text": TEXTS, "image": [picture(seed, 40, 33) for seed in range(3)]}
    vectors = {modality: model.encode(items[modality], modality=modality) for modality in model.modalities}
    for modality, before in vectors.items():
        embedded = model(modality, model.preprocess(modality).prepare(items[modality]))
        (embedded * torch.linspace(-1, 1, embedded.numel()).view(embedded.shape)).sum().backward()
        assert not np.allclose(before, finetuner.build_model(f"hf/{name}").encode(items[modality], modality=modality))
    idle = [path for path, matrix in matrices.items() if matrix.grad is None or not matrix.grad.any()]
    assert not idle
    for adapter, tolerance in ((True, 0), (False, 1e-5)):
        opened = finetuner.load(model.save(tmp_path / str(adapter), adapter=adapter))
        for modality, before in vectors.items():
            after = opened.encode(items[modality], modality=modality)
            np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
