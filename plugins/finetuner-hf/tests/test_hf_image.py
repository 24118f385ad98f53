"""Image models, against transformers' own networks and image processors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

import finetuner
from finetuner_core.errors import OptionError, WeightsError
from finetuner_core.interfaces import Stage
from finetuner_core.plugin import TOKEN_POOLINGS

VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 32, "patch_size": 4}
CNN = {"hidden_sizes": [8, 16], "depths": [1, 2]}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}


class Family:
    """A family, as its repositories are written.

    Args:
        model: what the class that was published is called.
        sizes: of the configuration.
        processor: the kind of image processor, and its settings.
        before: how many tokens stand before the patches, `None` where there is a map.
        norm: the name of the norm that the last hidden state still lacks.
        cls: whether there is a class token.
    """

    def __init__(
        self,
        model: str,
        sizes: Mapping[str, object],
        processor: Mapping[str, object],
        *,
        before: int | None,
        norm: str = "",
        cls: bool = True,
        own: bool = True,
    ) -> None:
        self.model, self.sizes, self.processor = model, sizes, processor
        self.before, self.norm, self.cls, self.own = before, norm, cls, own


def processor(kind: str, **settings: object) -> dict[str, object]:
    return {"image_processor_type": f"{kind}ImageProcessor", "image_mean": [0.5, 0.4, 0.3], **settings}


CROP = processor("Bit", **CROPPED)
FAMILIES = {
    "vit": Family("ViTForImageClassification", VIT, processor("ViT", **SQUARE), before=1),
    "deit": Family(
        "DeiTForImageClassificationWithTeacher",
        VIT,
        processor("DeiT", size={"height": 37, "width": 37}, crop_size=CROPPED["crop_size"]),
        before=2,
    ),
    "beit": Family("BeitForImageClassification", VIT, processor("Beit", **SQUARE), before=1, norm="pooler.layernorm"),
    "beit_cls": Family("BeitModel", VIT | {"use_mean_pooling": False}, processor("Beit", **SQUARE), before=1),
    "dinov2": Family("Dinov2Model", VIT | {"image_size": 40}, CROP, before=1),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", VIT | {"num_register_tokens": 3}, CROP, before=4),
    "dinov3_vit": Family("DINOv3ViTModel", VIT | {"num_register_tokens": 2}, processor("ViT", **SQUARE), before=3),
    "vit_msn": Family("ViTMSNModel", VIT, processor("ViT", **SQUARE), before=1),
    "ijepa": Family("IJepaModel", VIT, processor("ViT", **SQUARE), before=0, cls=False, own=False),
    "clip_vision_model": Family("CLIPVisionModel", VIT, processor("CLIP", **CROPPED), before=1, norm="post_layernorm"),
    "chinese_clip_vision_model": Family(
        "ChineseCLIPVisionModel", VIT, processor("ChineseCLIP", **CROPPED), before=1, norm="post_layernorm"
    ),
    "siglip_vision_model": Family("SiglipVisionModel", VIT, processor("Siglip", **SQUARE), before=0, cls=False),
    "swin": Family("SwinForImageClassification", SWIN, processor("ViT", **SQUARE), before=0, cls=False),
    "swinv2": Family("Swinv2Model", SWIN, processor("ViT", **SQUARE), before=0, cls=False),
    "convnext": Family(
        "ConvNextForImageClassification",
        CNN | {"num_stages": 2},
        processor("ConvNext", size={"shortest_edge": 32}, crop_pct=0.875),
        before=None,
        norm="layernorm",
        cls=False,
    ),
    "convnextv2": Family(
        "ConvNextV2Model",
        CNN | {"num_stages": 2},
        processor("ConvNext", size={"shortest_edge": 32}, crop_pct=0.8),
        before=None,
        norm="layernorm",
        cls=False,
    ),
    "dinov3_convnext": Family("DINOv3ConvNextModel", CNN, processor("ViT", **SQUARE), before=1, cls=False),
    "resnet": Family(
        "ResNetForImageClassification",
        CNN | {"embedding_size": 8},
        processor("ConvNext", size={"shortest_edge": 32}, crop_pct=0.875),
        before=None,
        cls=False,
    ),
    "regnet": Family(
        "RegNetModel",
        CNN | {"embedding_size": 8, "groups_width": 8},
        processor("ConvNext", size={"shortest_edge": 32}),
        before=None,
        cls=False,
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*ViTFeatureExtractor.*")


IMAGE_PROCESSOR: Any = transformers.AutoImageProcessor


def make(family: Family, folder: Path) -> Path:
    """Writes a small model of a family into a folder, in the layout of its repositories."""
    kind = getattr(transformers, family.model)
    torch.manual_seed(0)
    network = randomised(kind(kind.config_class(**family.sizes)))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(family.processor))
    return folder


def randomised(network: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        for parameter in network.parameters():
            # As transformers initialises them, classes hardly differ, and biases and masks not at all.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.eval()  # type: ignore[no-untyped-call]
    return network


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def folder(family: Family, tmp_path: Path) -> Path:
    return make(family, tmp_path / "model")


def library(folder: Path, pictures: list[Image.Image]) -> tuple[PreTrainedModel, Any]:
    """The network as transformers opens it, and what it gives."""
    network = AutoModel.from_pretrained(folder).eval()
    fed = IMAGE_PROCESSOR.from_pretrained(folder, backend="pil")(pictures, return_tensors="pt")
    with torch.inference_mode():
        return network, network(**fed)


def unit(vectors: Tensor) -> np.ndarray:
    return nn.functional.normalize(vectors).numpy()


def check_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-5
    assert (vectors * expected).sum(1).min() >= 0.99999
    assert len(np.unique(vectors.round(4), axis=0)) == len(vectors)


def expected_tokens(network: PreTrainedModel, output: Any, family: Family) -> Tensor:
    """Token features (B, T, D) with those before the patches, after the last norm."""
    tokens: Tensor = output.last_hidden_state
    if family.before is None:
        batch, width, _, _ = tokens.shape
        tokens = torch.stack([tokens[:, :, y, x] for y in range(tokens.shape[2]) for x in range(tokens.shape[3])], 1)
        assert tokens.shape[::2] == (batch, width)
    return network.get_submodule(family.norm)(tokens) if family.norm else tokens


def test_native_is_the_familys_own_vector(family: Family, folder: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(str(folder))
    if not family.own:
        assert model.info.poolings == TOKEN_POOLINGS
        return
    network, output = library(folder, pictures)
    dense = getattr(getattr(network, "pooler", None), "dense", None)
    pooled = getattr(output, "pooler_output", None)
    # The pooler of these was not in the checkpoint.
    expected = output.last_hidden_state[:, 0] if dense is not None or pooled is None else pooled.flatten(1)
    assert model.pooling == "native"
    check_same(model.encode(pictures), unit(expected))
    assert model.output_dim == model.info.output_dim
    assert model.new_weights == []


def test_mean_is_that_of_the_patches(family: Family, folder: Path, pictures: list[Image.Image]) -> None:
    network, output = library(folder, pictures)
    with torch.inference_mode():
        patches = expected_tokens(network, output, family)[:, family.before or 0 :]
        check_same(finetuner.build_model(str(folder), pooling="mean").encode(pictures), unit(patches.mean(1)))
        check_same(finetuner.build_model(str(folder), pooling="max").encode(pictures), unit(patches.amax(1)))


def test_cls_is_the_class_token(family: Family, folder: Path, pictures: list[Image.Image]) -> None:
    assert ("cls" in finetuner.build_model(str(folder)).info.poolings) == family.cls
    if not family.cls:
        with pytest.raises(OptionError, match='does not support the pooling "cls"'):
            finetuner.build_model(str(folder), pooling="cls")
        return
    network, output = library(folder, pictures)
    with torch.inference_mode():
        first = expected_tokens(network, output, family)[:, 0]
    check_same(finetuner.build_model(str(folder), pooling="cls").encode(pictures), unit(first))


def test_every_parameter_takes_part_and_stages_partition_them(
    family: Family, folder: Path, pictures: list[Image.Image]
) -> None:
    for pooling in finetuner.build_model(str(folder)).info.poolings:
        model = finetuner.build_model(str(folder), pooling=pooling)
        vectors = model("image", model.preprocess("image").prepare(pictures[:2]))
        (vectors * torch.randn_like(vectors)).sum().backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        extractor = model.encoder("image").extractor
        stages = extractor.stages()
        everything = [number for stage in stages for number in held(stage)]
        assert len(everything) == len(set(everything))
        assert set(everything) == {id(parameter) for parameter in extractor.parameters()}
        assert len({stage.name for stage in stages}) == len(stages)
        assert sum(stage.name.split()[0] in ("layer", "group") for stage in stages) == 2


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


def test_a_saved_model_opens_bit_by_bit_and_in_transformers(
    family: Family, folder: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    for pooling in ("native", "mean") if family.own else ("mean",):
        saved = tmp_path / pooling
        model = finetuner.build_model(str(folder), pooling=pooling)
        model.save(saved)
        assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
        opened = finetuner.load(saved)
        assert np.array_equal(opened.encode(pictures), model.encode(pictures))
        assert opened.new_weights == []
        network, output = library(saved, pictures)
        with torch.inference_mode():
            tokens = expected_tokens(network, output, family)[:, family.before or 0 :]
        check_same(finetuner.build_model(str(folder), pooling="mean").encode(pictures), unit(tokens.mean(1)))


def test_another_size_is_seen_and_kept(
    family: Family, folder: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = finetuner.build_model(str(folder), image_size=48, pooling="mean")
    assert model.preprocess("image").image_size == (48, 48)  # type: ignore[attr-defined]
    vectors = model.encode(pictures)
    assert not np.allclose(vectors, finetuner.build_model(str(folder), pooling="mean").encode(pictures), atol=1e-3)
    model.save(tmp_path / "saved")
    assert np.array_equal(finetuner.load(tmp_path / "saved").encode(pictures), vectors)
    pixels = IMAGE_PROCESSOR.from_pretrained(tmp_path / "saved", backend="pil")(pictures, return_tensors="pt")
    assert pixels["pixel_values"].shape[-2:] == (48, 48)
    network = AutoModel.from_pretrained(folder).eval()
    fed = {**pixels, **({"interpolate_pos_encoding": True} if "patch_size" in family.sizes else {})}
    with torch.inference_mode():
        try:
            output = network(**fed)
        except TypeError:  # it interpolates without being told
            output = network(**pixels)
        patches = expected_tokens(network, output, family)[:, family.before or 0 :]
    check_same(vectors, unit(patches.mean(1)))


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("vit", 33, "it cuts them into patches of 8 pixels.\nChoose a multiple of that, such as 32 or 40"),
        ("dinov2", 3, "it cuts them into patches of 8 pixels.\nChoose a multiple of that, such as 8 or 8"),
        ("resnet", 1, None),
        ("convnext", 1, "cannot see images of image_size"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: int, reason: str | None, tmp_path: Path) -> None:
    folder = make(FAMILIES[name], tmp_path / "model")
    if reason is None:
        assert finetuner.build_model(str(folder), image_size=size).output_dim == 16
        return
    with pytest.raises(OptionError, match=reason) as caught:
        finetuner.build_model(str(folder), image_size=size)
    assert len(str(caught.value).splitlines()) == 2


def test_a_rest_that_the_networks_own_size_leaves_is_its_own(tmp_path: Path, pictures: list[Image.Image]) -> None:
    settings = processor("Siglip", size={"height": 35, "width": 35})
    family = Family("SiglipVisionModel", VIT | {"image_size": 35}, settings, before=0, cls=False)
    folder = make(family, tmp_path / "model")
    _, output = library(folder, pictures)
    for size in (None, 35):
        check_same(finetuner.build_model(str(folder), image_size=size).encode(pictures), unit(output.pooler_output))


def test_a_pooler_that_was_trained_is_the_native_vector(tmp_path: Path, pictures: list[Image.Image]) -> None:
    family = Family("ViTModel", VIT, processor("ViT", **SQUARE), before=1)
    folder = make(family, tmp_path / "model")
    _, output = library(folder, pictures)
    model = finetuner.build_model(str(folder))
    check_same(model.encode(pictures), unit(output.pooler_output))
    model.save(tmp_path / "saved")
    assert np.array_equal(finetuner.load(tmp_path / "saved").encode(pictures), model.encode(pictures))
    # With random weights there is none that was trained.
    scratch = finetuner.build_model(str(folder), pretrained=False)
    assert not any("pooler" in name for name, _ in scratch.named_parameters())


def test_weights_that_the_checkpoint_lacks_are_named(tmp_path: Path) -> None:
    folder = make(Family("BeitForMaskedImageModeling", VIT, processor("Beit", **SQUARE), before=1), tmp_path / "model")
    new = finetuner.build_model(str(folder)).new_weights
    assert new == ["pooler.layernorm.bias", "pooler.layernorm.weight"]


def test_siglip_without_its_head_gives_tokens(tmp_path: Path, pictures: list[Image.Image]) -> None:
    family = Family(
        "SiglipVisionModel", VIT | {"vision_use_head": False}, processor("Siglip", **SQUARE), before=0, cls=False
    )
    model = finetuner.build_model(str(make(family, tmp_path / "model")))
    assert model.pooling == "mean"
    assert model.encode(pictures[:1]).shape == (1, 32)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_repository_of_that_name_in_the_cache_opens(
    name: str, put_into_cache: Callable[[str], Path], tmp_path: Path, pictures: list[Image.Image]
) -> None:
    make(FAMILIES[name], put_into_cache(f"someone/{name}"))
    by_name = finetuner.build_model(f"hf/someone/{name}")
    by_path = finetuner.build_model(str(make(FAMILIES[name], tmp_path / "model")))
    assert np.array_equal(by_name.encode(pictures), by_path.encode(pictures))
    assert by_name.info.task == "image-to-image"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "yolos"}, "it says what is where in an image"),
        ({"model_type": "detr", "backbone_config": {"model_type": "resnet"}}, "it says what is where in an image"),
        ({"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"]}, "what is where"),
        ({"model_type": "beit", "architectures": ["BeitForSemanticSegmentation"]}, "what is where"),
        ({"model_type": "depth_anything", "backbone_config": {"model_type": "dinov2"}}, "what is where"),
        ({"model_type": "sam"}, "what is where"),
        ({"model_type": "wav2vec2"}, "it is one for sound"),
        ({"model_type": "videomae"}, "it is one for videos"),
        ({"model_type": "vit_mae"}, "transformers leaves most of each image out at random"),
        ({"model_type": "timm_wrapper", "architecture": "resnet18", "num_classes": 2}, "its network is timm's"),
    ],
)
def test_models_without_an_embedding_are_refused(config: dict[str, object], reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=reason) as caught:
        finetuner.build_model(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("dropped", ["", "layernorm.weight"])
def test_code_that_is_not_needed_is_not_kept(dropped: str, tmp_path: Path) -> None:
    folder = make(FAMILIES["dinov2"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if name != dropped}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    if dropped:
        with pytest.raises(WeightsError, match="brings Python code of its own"):
            finetuner.build_model(str(folder))
        return
    finetuner.build_model(str(folder)).save(tmp_path / "saved")
    assert "auto_map" not in (tmp_path / "saved" / "config.json").read_text()


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    folder = make(Family("ViTModel", VIT | {"num_channels": 1}, processor("ViT"), before=1), tmp_path / "model")
    with pytest.raises(WeightsError, match="sees images of 1 channels"):
        finetuner.build_model(str(folder))
