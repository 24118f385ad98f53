"""Everything that holds of one architecture, over the tiny models and one small model of each family.

The sweep runs the same checks over all that timm lists; its findings are in `docs/sweep.md`.
"""

from __future__ import annotations

import pytest
import torch
from timm_checks import check, draw, recipe_of
from torch import nn

from finetuner_timm.library import timm

TINY = sorted(timm.list_models("test_*"))

SMALLEST = {
    "byoanet": "halonet_h1",
    "byobnet": "mobileone_s0",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "deit": "deit_tiny_distilled_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "mobilenetv2_050",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "gcvit": "gcvit_xxtiny",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_v3": "inception_v3",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "maxvit_pico_rw_256",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "nest": "nest_tiny",
    "pit": "pit_ti_224",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet18",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "senet": "legacy_seresnet18",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "twins": "twins_svt_small",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vitamin": "vitamin_small_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xcit": "xcit_nano_12_p16_224",
}
"""The smallest of each family, or another where it has something that the smallest has not."""

TOO_LARGE = {
    "beit": ("beit_base_patch16_224", 86_530_984),
    "davit": ("davit_tiny", 28_360_168),
    "deepseek_vit": ("deepseek_vit_412m", 411_842_560),
    "focalnet": ("focalnet_tiny_srf", 28_427_116),
    "gemma4_vit": ("gemma4_vit_167m", 167_364_608),
    "hiera": ("hiera_tiny_224", 27_910_216),
    "hieradet_sam2": ("sam2_hiera_tiny", 26_851_008),
    "inception_resnet_v2": ("inception_resnet_v2", 55_843_464),
    "inception_v4": ("inception_v4", 42_679_816),
    "mobilenetv5": ("mobilenetv5_base", 82_647_976),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 86_461_672),
    "nasnet": ("nasnetalarge", 88_753_150),
    "nextvit": ("nextvit_small", 31_763_368),
    "nfnet": ("nfnet_l0", 35_074_488),
    "pnasnet": ("pnasnet5large", 86_057_668),
    "qwen3_vit": ("qwen3_vit_88m", 87_414_528),
    "selecsls": ("selecsls42", 30_354_952),
    "sequencer": ("sequencer2d_s", 27_651_688),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 28_288_354),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 28_347_154),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 28_332_124),
    "tresnet": ("tresnet_m", 31_389_032),
    "vgg": ("vgg11", 132_863_336),
    "vision_transformer_sam": ("samvit_base_patch16_224", 86_457_064),
    "volo": ("volo_d1_224", 26_632_040),
    "xception_aligned": ("xception41", 26_969_560),
}
"""Families whose smallest member has so many parameters that the sweep alone checks it."""


def family_of(name: str) -> str:
    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def test_no_family_is_left_out() -> None:
    assert {family_of(name) for name in timm.list_models()} == {*SMALLEST, *TOO_LARGE}
    assert not {*SMALLEST} & {*TOO_LARGE}
    assert {family: family_of(name) for family, name in SMALLEST.items()} == {family: family for family in SMALLEST}


@pytest.mark.parametrize(("name", "parameters"), TOO_LARGE.values())
def test_what_is_left_to_the_sweep_is_too_large(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in timm.create_model(name).parameters()) == parameters > 25_000_000


@pytest.mark.parametrize("name", sorted({*TINY, *SMALLEST.values()}))
def test_an_architecture_is_right(name: str) -> None:
    finding = check(name)
    assert (finding.outcome, finding.reason) == ("right", "")
    assert {"width", "native", "native gradient"} <= set(finding.checks)
    assert ("mean" in finding.poolings) == ("order" in finding.checks)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("test_resnet", "same"),
        ("test_convnext", "another vector"),  # the norm behind the pool is left out
        ("mobilenetv3_small_050", "another width"),  # and the layer behind it
        ("swin_tiny_patch4_window7_224", "broken"),  # channels last
    ],
)
def test_what_the_usual_recipe_makes_of_it(name: str, found: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, num_classes=0).eval()
    pixels = torch.randn(2, *network.pretrained_cfg["input_size"])  # type: ignore[index]
    draw(network, pixels)
    with torch.no_grad():
        assert recipe_of(network, pixels, network(pixels)) == found
