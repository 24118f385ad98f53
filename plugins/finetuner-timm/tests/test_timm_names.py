"""Which names mean what, and what is said where one means nothing or cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm

import finetuner
from finetuner_core.errors import UnknownNameError, WeightsError
from finetuner_timm import plugin, rows
from finetuner_timm.embedding import NoEmbeddingError


def test_an_architecture_is_found_with_its_default_weights() -> None:
    row = plugin.find_backbone("test_vit")
    assert row is not None
    assert (row.name, row.task, row.output_dim, row.architecture) == (
        "test_vit",
        "image-to-image",
        64,
        "VisionTransformer",
    )
    assert row.source == "https://huggingface.co/timm/test_vit.r160_in1k"
    assert row.description == "Pretrained weights r160_in1k"
    assert row.parameters == sum(p.numel() for p in timm.create_model("test_vit", num_classes=0).parameters())


def test_an_architecture_with_a_tag_is_found_with_those_weights() -> None:
    row = plugin.find_backbone("vgg11.tv_in1k")
    assert row is not None
    assert row.output_dim == 4096  # timm's num_features says 512: the row is measured
    assert row.source == "https://huggingface.co/timm/vgg11.tv_in1k"
    assert row.licence


@pytest.mark.parametrize("name", ["deepseek_vit_412m_enc", "gemma4_vit_167m_enc"])
def test_an_architecture_without_an_embedding_is_refused_in_two_lines(name: str) -> None:
    with pytest.raises(NoEmbeddingError) as caught:
        plugin.find_backbone(name)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{name} has no embedding to give: ")
    assert second == "Use an architecture that gives one: finetuner list"


def test_an_architecture_that_takes_other_than_pictures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create: Any = timm.create_model

    def with_four_channels(name: str, **options: Any) -> Any:
        network = create(name, in_chans=4, **options)
        network.pretrained_cfg["input_size"] = (4, 96, 96)
        return network

    monkeypatch.setattr(timm, "create_model", with_four_channels)
    with pytest.raises(NoEmbeddingError, match="test_resnet has no embedding to give: it takes images of 4 channels"):
        plugin.find_backbone("test_resnet")


@pytest.mark.parametrize("name", ["resnet500", "resnet50.nope", "resnet50.", "no/such", "local-dir:x", "hf-hub:timm/a"])
def test_what_timm_does_not_have_is_not_found(name: str) -> None:
    assert plugin.find_backbone(name) is None


@pytest.mark.parametrize(("name", "near"), [("resnt50", "resnet50"), ("resnet50.nope", "resnet50")])
def test_an_unknown_name_gets_near_names(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        finetuner.build_model(f"timm/{name}")
    first, second = str(caught.value).splitlines()
    assert f'Plugin "timm" knows no model "{name}"' in first
    assert f'{near}"' in first.partition("Did you mean ")[2]
    assert "finetuner list --search" in second


def test_search_gives_architectures_and_tags_where_a_pattern_asks_for_them() -> None:
    assert set(plugin.find_backbone_names("test_vi*")) == set(timm.list_models("test_vi*"))
    assert list(plugin.find_backbone_names("test_vit.*")) == ["test_vit.r160_in1k"]
    assert list(plugin.find_backbone_names("bert*case*")) == []
    assert {row.name for row in rows.ROWS} <= set(plugin.find_backbone_names("*"))


@pytest.mark.parametrize("name", ["resnet50", "timm/test_vit", "timm/resnet18.a1_in1k"])
def test_weights_that_cannot_be_had_are_two_lines_with_what_to_do(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model(name)
    first, second = str(caught.value).splitlines()
    assert f"The weights of timm/{name.removeprefix('timm/')} are neither in the local cache" in first
    assert second.startswith("With a network, run: hf download timm/")
    assert "--from-scratch (pretrained=False)" in second


def test_an_architecture_without_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=r"timm has no pretrained weights for test_vit_relpos|Start from random"):
        finetuner.build_model("timm/swinv2_cr_tiny_384")


def test_without_pretrained_weights_nothing_is_asked_for() -> None:
    assert finetuner.build_model("timm/test_resnet", pretrained=False).output_dim == 96


def test_a_timm_that_cannot_be_imported_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import finetuner
assert [row.name for row in finetuner.list_models("image-to-image")][0] == "resnet50"
try:
    finetuner.build_model("resnet50")
except finetuner.FinetunerError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.strip().splitlines()
    assert first == "timm cannot be imported: operator torchvision::nms does not exist"
    assert "finetuner doctor" in second or "pip install" in second


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, finetuner_timm.plugin\n"
        "print(sorted({'torch', 'numpy', 'timm', 'torchvision', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
