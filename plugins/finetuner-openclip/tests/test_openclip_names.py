"""Which names mean what, what their weights are, and what is said where these cannot be had."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import finetuner
from finetuner_core.errors import UnknownNameError, WeightsError
from finetuner_core.plugin import BackboneInfo
from finetuner_openclip import plugin, rows
from finetuner_openclip.library import open_clip, unheard
from finetuner_openclip.network import create


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_listed_row_says_what_open_clip_builds(row: BackboneInfo) -> None:
    found = plugin.find_backbone(row.name)
    assert found is not None
    same = ("name", "task", "output_dim", "poolings", "options", "source", "parameters")
    assert [getattr(found, field) for field in same] == [getattr(row, field) for field in same]
    assert row.output_dim == open_clip.get_model_config(row.name)["embed_dim"]


def test_the_first_row_emits_what_it_says_at_real_size() -> None:
    row = rows.ROWS[0]
    model = finetuner.build_model(row.name, pretrained=False)
    assert model.encode(["a cat"], modality="text").shape == (1, row.output_dim)
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters


@pytest.mark.parametrize(
    "name", ["RN50", "coca_ViT-B-32", "MobileCLIP2-S0", "ViT-B-16-SigLIP", "ViTamin-S", "EVA02-B-16"]
)
def test_an_architecture_is_found_and_measured(name: str) -> None:
    row = plugin.find_backbone(name)
    assert row is not None
    assert row.output_dim == open_clip.get_model_config(name)["embed_dim"]


def test_no_name_of_open_clip_is_taken_apart_wrongly() -> None:
    tagged = list(plugin.find_backbone_names("*.*"))
    assert tagged == [f"{name}.{tag}" for name, tag in open_clip.list_pretrained()]
    assert all(name.count(".") == 1 and not set(name) & set(" /") for name in tagged)
    assert list(plugin.find_backbone_names("*")) == open_clip.list_models()
    assert list(plugin.find_backbone_names("ViT-B-32.laion2b*")) == [
        "ViT-B-32.laion2b_e16",
        "ViT-B-32.laion2b_s34b_b79k",
    ]


@pytest.mark.parametrize("name", ["ViT-B-33", "hf-hub:laion/x", "local-dir:x", "laion/CLIP-ViT-B-32"])
def test_what_open_clip_does_not_have_is_not_found(name: str) -> None:
    assert plugin.find_backbone(name) is None


def test_an_unknown_name_gets_near_names() -> None:
    with pytest.raises(UnknownNameError, match=r'knows no model "ViT-B-3"\. Did you mean "ViT-B-32'):
        finetuner.build_model("openclip/ViT-B-3")


def test_an_unknown_tag_gets_the_tags_that_there_are() -> None:
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model("openclip/coca_ViT-B-32.laion2b_s13b")
    assert str(caught.value).splitlines() == [
        'open_clip has no weights "laion2b_s13b" for coca_ViT-B-32. Did you mean "laion2b_s13b_b90k"?',
        "It has laion2b_s13b_b90k, mscoco_finetuned_laion2b_s13b_b90k.",
    ]
    with pytest.raises(WeightsError, match="It has none: write openclip/tiny_vit"):
        finetuner.build_model("openclip/tiny_vit.nope")


def test_which_weights_has_to_be_said_where_there_are_more() -> None:
    with pytest.raises(
        WeightsError, match=r"more than one set of weights for RN50, (.|\n)*one of openai, yfcc15m, cc12m"
    ):
        finetuner.build_model("openclip/RN50")
    with pytest.raises(WeightsError, match=r"no pretrained weights for tiny_vit\.\nStart from random weights"):
        finetuner.build_model("openclip/tiny_vit")


def test_weights_that_cannot_be_had_are_two_lines_with_what_to_do() -> None:
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model("ViT-B-32")
    first, second = str(caught.value).splitlines()
    assert first.startswith("The weights of openclip/ViT-B-32.laion2b_s34b_b79k are neither in the local cache")
    assert second.startswith("With a network, run: hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K ")


def test_a_tokenizer_and_a_text_tower_that_cannot_be_had_are_named() -> None:
    with pytest.raises(
        WeightsError, match=r"tokenizer of timm/ViT-B-16-SigLIP cannot (.|\n)*hf download timm/ViT-B-16-SigLIP"
    ):
        finetuner.build_model("openclip/ViT-B-16-SigLIP", pretrained=False)
    with pytest.raises(WeightsError, match=r"config.json of roberta-base is neither (.|\n)*hf download roberta-base"):
        finetuner.build_model("openclip/roberta-ViT-B-32", pretrained=False)


@pytest.mark.parametrize("quick", [False, True])
def test_weights_of_a_tag_come_from_the_cache_with_their_activation_and_preprocessing(
    quick: bool, put_into_cache: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tag: dict[str, Any] = {
        "hf_hub": "someone/tiny/",
        "mean": (0.1, 0.2, 0.3),
        "resize_mode": "squash",
        "quick_gelu": quick,
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny_vit", {"mine": tag})
    with unheard():
        torch.manual_seed(3)
        theirs = open_clip.create_model("tiny_vit", force_quick_gelu=quick).eval()
    save_file(theirs.state_dict(), put_into_cache("someone/tiny") / "open_clip_model.safetensors")
    model = finetuner.build_model("openclip/tiny_vit.mine")
    ids = open_clip.get_tokenizer("tiny_vit")(["a cat", "two dogs"])
    with torch.inference_mode():
        expected = theirs.encode_text(ids, normalize=True).numpy()
    assert np.abs(model.encode(["a cat", "two dogs"], modality="text") - expected).max() < 1e-6
    preprocess: Any = model.preprocess("image")
    assert preprocess._mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"model_cfg": 3}', '{"model_type": "clip"}'])
def test_a_folder_of_another_format_is_not_claimed(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "open_clip_config.json").write_text(content)
    assert plugin.find_backbone(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"embed_dim": 4, "audio_cfg": {}, "text_cfg": {}},
            r"no model of texts and images: it has no vision_cfg \(there is: audio_cfg",
        ),
        ({"embed_dim": 4, "vision_cfg": {"timm_model_name": "naflexvit_base"}, "text_cfg": {}}, "NaFlex"),
        ({"embed_dim": 4, "vision_cfg": {"nonsense": 1}, "text_cfg": {}}, "cannot be loaded: .*nonsense"),
    ],
)
def test_a_folder_of_something_else_is_refused_in_words(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(WeightsError, match=words):
        finetuner.build_model(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, damage: str) -> None:
    finetuner.build_model("openclip/tiny_vit", pretrained=False).save(tmp_path / "model")
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"The model in .*model cannot be loaded: .+\nMend the folder"):
        finetuner.load(tmp_path / "model")


def test_open_clip_gives_the_program_no_log_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    plugin.find_backbone("tiny_vit")
    assert logging.root.handlers == []


def test_the_two_forms_of_clip_are_one(tmp_path: Path) -> None:
    from finetuner_openclip.architectures import known

    architecture = known("tiny_vit")
    assert architecture is not None
    assert {name.partition(".")[0] for name in create(architecture, False).state_dict()} == {
        "logit_scale",
        "text",
        "visual",
    }


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, finetuner_openclip.plugin\n"
        "print(sorted({'torch', 'numpy', 'timm', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
