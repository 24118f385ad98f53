"""From a name to a model, and what a plugin may get wrong on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import FolderError, OptionError, PluginError, UnknownNameError
from finetuner_core.modeling.build import build_model, load
from finetuner_core.values import TEXT_POOLINGS

InstallPlugin = Callable[..., None]
POOLINGS = ", ".join(TEXT_POOLINGS)

PLUGIN = """
from finetuner_core.plugin import BackboneInfo, PoolingInfo, hookimpl

@hookimpl
def list_backbones():
    return [BackboneInfo("one", "all", 3, "toy", "", poolings={poolings})]

@hookimpl
def list_poolings():
    return [PoolingInfo("odd", "")]

@hookimpl
def load_backbone(info, pretrained, options):
    from torch import nn
    from finetuner_core.interfaces import LoadedBackbone
    return {load}

@hookimpl
def strip_head(info, loaded, pooling):
    from torch import nn
    from finetuner_core.interfaces import FeatureExtractor, Features, Stage
    class Extractor(FeatureExtractor):
        def __init__(self):
            super().__init__()
            self.layer = loaded.network
            {width}
        def forward(self, batch):
            return Features.of_vectors(self.layer(batch["vectors"]))
        def stages(self):
            return [Stage("layer", (self.layer,))]
    return {strip}

@hookimpl
def build_pooling(info, dim, options):
    from finetuner_core.interfaces import Pooling
    class Odd(Pooling):
        def __init__(self):
            super(Pooling, self).__init__()
        def forward(self, features):
            return features.tokens[:, 0]
    return {pool}
"""
RIGHT = {
    "poolings": '("native",)',
    "load": "LoadedBackbone(nn.Linear(3, 3), preprocess={}, save=lambda network, folder: None)",
    "width": "self.dim = 3",
    "strip": '{"vector": Extractor()}',
    "pool": "None",
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropuot": 0.1}, 'acme/letters has no option "dropuot". Did you mean "dropout"?\nIt has dropout.'),
        ({"dropout": "much"}, 'acme/letters: dropout takes a number, not "much".'),
        ({"dropout": -1}, 'acme/letters: dropout is "-1"; it must be at least 0.'),
        (
            {"pooling": "maen"},
            f'letters does not support the pooling "maen". Did you mean "mean"?\nIt supports {POOLINGS}.',
        ),
        ({"pooling": "native"}, f'letters does not support the pooling "native".\nIt supports {POOLINGS}.'),
        ({"output_dim": 0}, "output_dim is 0; it must be at least 1."),
        ({"output_dim": -3}, "output_dim is -3; it must be at least 1."),
    ],
)
@pytest.mark.usefixtures("acme")
def test_what_an_option_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_model("letters", **options)
    assert str(caught.value) == message


@pytest.mark.usefixtures("acme")
def test_an_option_that_has_to_be_given() -> None:
    with pytest.raises(OptionError, match="acme/numbers needs the option input_size: Width of the vectors"):
        build_model("numbers")


@pytest.mark.usefixtures("acme")
def test_an_unknown_name_gets_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'No model is named "leters"\. Did you mean "letters"'):
        build_model("leters")


@pytest.mark.usefixtures("acme")
def test_pretrained_weights_are_the_published_ones_and_random_ones_follow_the_seed() -> None:
    def weights(pretrained: bool, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build_model("pixels", pretrained=pretrained).parameters()])

    assert torch.equal(weights(True, 0), weights(True, 1))
    assert torch.equal(weights(False, 0), weights(False, 0))
    assert not torch.equal(weights(False, 0), weights(False, 1))
    assert not torch.equal(weights(False, 0), weights(True, 0))


@pytest.mark.usefixtures("acme")
def test_an_options_value_reaches_the_network() -> None:
    drop = build_model("letters", dropout="0.25").get_submodule("towers.0.encoders.text.extractor.network.letters_drop")
    assert isinstance(drop, nn.Dropout)
    assert drop.p == 0.25


@pytest.mark.usefixtures("acme")
def test_a_projection_is_added_only_if_asked_for() -> None:
    assert build_model("letters").encoder("text").projection is None
    layer = build_model("letters", output_dim=5).encoder("text").projection
    assert layer is not None
    assert (layer.in_features, layer.out_features) == (16, 5)


@pytest.mark.usefixtures("acme")
def test_modalities_start_with_the_same_projection_each_with_its_own() -> None:
    model = build_model("both", output_dim=5)
    text, image = model.encoder("text").projection, model.encoder("image").projection
    assert text is not None
    assert image is not None
    assert torch.equal(text.weight, image.weight)
    assert text.weight is not image.weight


@pytest.mark.usefixtures("acme")
def test_a_saved_folder_is_a_model_by_its_path(tmp_path: Path) -> None:
    path = build_model("letters", pooling="max").save(tmp_path / "model")
    assert build_model(str(path)).pooling == "max"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pooling": "cls"}, "which has its own pooling"),
        ({"output_dim": 8}, "which has its own output_dim"),
        ({"dropout": 0.5}, "which has its own dropout"),
        ({"pretrained": False}, "which has its own weights"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_a_saved_model_cannot_be_set_anew(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = build_model("letters").save(tmp_path / "model")
    with pytest.raises(OptionError, match=f"{path} is a saved model, {words}"):
        build_model(str(path), **settings)


@pytest.mark.usefixtures("acme")
def test_without_its_plugin_a_saved_model_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_model("letters").save(tmp_path / "model")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "finetuner-acme" not in entry])
    catalogue.cache_clear()
    with pytest.raises(PluginError) as caught:
        load(path)
    assert str(caught.value) == (
        f'{path} needs the plugin "acme", which is not installed.\nInstall it: pip install finetuner-acme'
    )


@pytest.mark.usefixtures("acme")
def test_with_its_plugin_switched_off_a_saved_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_model("letters").save(tmp_path / "model")
    monkeypatch.setenv("FINETUNER_DISABLE_PLUGINS", "acme")
    catalogue.cache_clear()
    with pytest.raises(PluginError, match="switched off by FINETUNER_DISABLE_PLUGINS"):
        load(path)


@pytest.mark.usefixtures("acme")
def test_a_saved_model_without_its_backbone_is_not_complete(tmp_path: Path) -> None:
    path = build_model("letters").save(tmp_path / "model")
    (path / "config.json").unlink()
    with pytest.raises(FolderError, match=f'{path} is not complete: the plugin "acme" finds no backbone in it'):
        load(path)


@pytest.mark.parametrize("what", [{}, {"strip": '{"vector": Extractor(), "text": None}'}])
def test_a_plugin_that_gets_everything_right(what: dict[str, str], install_plugin: InstallPlugin) -> None:
    install_plugin("toy", PLUGIN.format(**RIGHT | what))
    assert build_model("one").output_dim == 3


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"load": "None"}, 'Plugin "toy": load_backbone gave "None", no LoadedBackbone.'),
        ({"load": "nn.Identity()"}, 'Plugin "toy": load_backbone gave "Identity()", no LoadedBackbone.'),
        ({"load": "1 / 0"}, 'Plugin "toy" (finetuner-toy 1.0) failed in load_backbone: ZeroDivisionError'),
        ({"load": "exit()"}, 'Plugin "toy" (finetuner-toy 1.0) failed in load_backbone: SystemExit'),
        *(
            ({"strip": strip}, 'Plugin "toy": strip_head gave no FeatureExtractor with a dim for vector.')
            for strip in (
                "None",
                "5",
                '"vector"',
                "[Extractor()]",
                "{}",
                '{"text": Extractor()}',
                '{"vector": nn.Linear(3, 3)}',
            )
        ),
        ({"width": "pass"}, 'Plugin "toy": strip_head gave no FeatureExtractor with a dim for vector.'),
        ({"strip": "{}['no']"}, 'Plugin "toy" (finetuner-toy 1.0) failed in strip_head: KeyError'),
        ({"poolings": '("odd",)', "pool": "None"}, 'Plugin "toy": build_pooling gave "None", not a Pooling'),
        ({"poolings": '("odd",)', "pool": "max"}, 'Plugin "toy": build_pooling gave "<built-in function max>"'),
        ({"poolings": '("odd",)', "pool": "Odd()"}, 'Plugin "toy": build_pooling gave "Odd()", not a Pooling with a'),
        ({"width": "self.dim = 4"}, "toy/one emits vectors of width [4], and its row says 3."),
    ],
)
def test_what_a_plugin_gets_wrong_is_told_of_it(
    what: dict[str, str], message: str, install_plugin: InstallPlugin
) -> None:
    install_plugin("toy", PLUGIN.format(**RIGHT | what))
    with pytest.raises(PluginError) as caught:
        build_model("one")
    assert str(caught.value).startswith(message)


def test_a_pooling_that_a_row_promises_and_nobody_has(install_plugin: InstallPlugin) -> None:
    install_plugin("toy", PLUGIN.format(**RIGHT | {"poolings": '("even",)'}))
    with pytest.raises(UnknownNameError, match='There is no pooling "even"'):
        build_model("one")


def test_what_a_plugin_prints_while_it_loads_is_not_shown(
    install_plugin: InstallPlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("toy", PLUGIN.format(**RIGHT | {"load": f'(print("loading"), {RIGHT["load"]})[1]'}))
    build_model("one")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.usefixtures("acme")
def test_a_folder_whose_path_has_spaces(tmp_path: Path) -> None:
    model = build_model("letters")
    folder = model.save(tmp_path / "my best model")
    assert np.array_equal(load(folder).encode(["a", "bc"]), model.encode(["a", "bc"]))
    assert np.array_equal(build_model(str(folder)).encode(["a", "bc"]), model.encode(["a", "bc"]))
