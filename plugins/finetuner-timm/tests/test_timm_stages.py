"""Stages hold every parameter exactly once, in the order in which an image meets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from torch import nn

from finetuner_core.interfaces import FeatureExtractor, Stage
from finetuner_timm.extractors import strip

# Beside the tiny ones: shared modules (coat), and no groups of timm's own (poolformer, pit, rdnet).
UNUSUAL = ["coat_tiny", "poolformer_s12", "pit_ti_224", "rdnet_tiny", "xcit_nano_12_p8_224"]
NAMES = [*sorted(timm.list_models("test_*")), *UNUSUAL]


def stripped(name: str) -> FeatureExtractor:
    with torch.device("meta"):
        network: Any = timm.create_model(name).eval()
        _, height, width = network.pretrained_cfg["input_size"]
        return strip(network, "native", (height, width), name=name)


def held(stage: Stage) -> list[int]:
    return [id(p) for module in stage.modules for p in module.parameters()] + [id(p) for p in stage.parameters]


def names_of(extractor: FeatureExtractor, stages: Sequence[Stage]) -> list[list[str]]:
    """The names of what each stage holds: of its modules, and of its bare parameters."""
    network = extractor.get_submodule("network")
    named = {id(it): name for name, it in [*network.named_modules(), *network.named_parameters()]}
    return [[named[id(it)] for it in (*stage.modules, *stage.parameters)] for stage in stages]


@pytest.mark.parametrize("name", NAMES)
def test_stages_partition_the_parameters(name: str) -> None:
    extractor = stripped(name)
    stages = extractor.stages()
    everything = [number for stage in stages for number in held(stage)]
    assert len(stages) > 2
    assert all(held(stage) for stage in stages)
    assert len(everything) == len(set(everything))
    assert set(everything) == {id(parameter) for parameter in extractor.parameters()}


def test_stages_of_a_resnet_are_its_stem_and_its_four_layers() -> None:
    extractor = stripped("test_resnet")
    assert names_of(extractor, extractor.stages())[1:] == [["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    assert set(names_of(extractor, extractor.stages())[0]) == {"conv1", "bn1"}


def test_stages_of_an_efficientnet_are_its_stem_and_its_blocks_and_the_last_has_the_last_convolution() -> None:
    extractor = stripped("test_efficientnet")
    stem, *blocks, last = names_of(extractor, extractor.stages())
    assert set(stem) == {"conv_stem", "bn1"}
    assert blocks == [[f"blocks.{number}"] for number in range(len(blocks))]
    assert set(last) == {f"blocks.{len(blocks)}", "conv_head", "bn2"}


def test_stages_of_a_vision_transformer_begin_with_its_bare_parameters() -> None:
    extractor = stripped("test_vit")
    stages = extractor.stages()
    names = names_of(extractor, stages)
    assert set(names[0]) == {"patch_embed", "cls_token", "pos_embed"}
    assert {type(parameter) for parameter in stages[0].parameters} == {nn.Parameter}
    blocks = names[1:-1]
    assert blocks == [[f"blocks.{number}"] for number in range(len(blocks))]
    assert set(names[-1]) == {f"blocks.{len(blocks)}", "norm"}


def test_batch_statistics_belong_to_a_stage() -> None:
    extractor = stripped("test_efficientnet")
    inside = {id(m) for stage in extractor.stages() for module in stage.modules for m in module.modules()}
    norms = [module for module in extractor.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(id(norm) in inside for norm in norms)
