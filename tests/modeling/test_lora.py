"""LoRA beside the layers of a backbone, against its formula and against what PEFT itself reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

peft = pytest.importorskip("peft", reason="LoRA needs PEFT")

from finetuner_core.errors import FolderError, OptionError, PluginError  # noqa: E402
from finetuner_core.modeling import lora  # noqa: E402
from finetuner_core.modeling.build import build_model, load  # noqa: E402
from finetuner_core.modeling.embedding_model import EmbeddingModel  # noqa: E402
from finetuner_core.values import resolve_options  # noqa: E402

pytestmark = pytest.mark.usefixtures("acme")

TEXTS = ["a", "one that is longer", "", "zwei"]


def with_lora(
    name: str = "letters", rank: int = 2, build: dict[str, Any] | None = None, **options: object
) -> EmbeddingModel:
    """A model whose matrices are none of those that training starts with."""
    model = build_model(name, **build or {})
    for _, tower in model.sided_towers():
        lora.inject(tower.encoders, rank, resolve_options(lora.OPTIONS, options, "lora"))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if lora.is_matrix(parameter_name):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    model.eval()
    return model


def test_it_starts_as_the_backbone_was() -> None:
    model, plain = build_model("letters"), build_model("letters")
    lora.inject(model.tower("text").encoders, 4, resolve_options(lora.OPTIONS, {}, "lora"))
    assert np.array_equal(model.encode(TEXTS), plain.encode(TEXTS))


@pytest.mark.parametrize("alpha", [None, 3])
def test_it_adds_what_the_formula_says(alpha: int | None) -> None:
    model = with_lora(rank=2, alpha=alpha)
    state = {name: tensor for name, tensor in model.state_dict().items() if "letters_out" in name}
    a, b = (next(t for name, t in state.items() if f"lora_{which}" in name) for which in "AB")
    plain = build_model("letters")
    with torch.no_grad():
        layer = plain.encoder("text").extractor.get_submodule("network.letters_out")
        assert isinstance(layer, nn.Linear)
        layer.weight += (2 * 2 if alpha is None else alpha) / 2 * b @ a
    np.testing.assert_allclose(model.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("name", ["letters", "pixels", "both"])
def test_saved_merged_it_is_a_plain_model(name: str, tmp_path: Path) -> None:
    model = with_lora(name, build={"output_dim": 3})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = model.save(tmp_path / "model")
    loaded = load(folder)
    assert not lora.has_matrices(loaded)
    assert not (folder / lora.ADAPTER_FILE).exists()
    for modality in model.modalities:
        items: Any = TEXTS if modality == "text" else [np_image(seed) for seed in range(3)]
        np.testing.assert_allclose(
            loaded.encode(items, modality=modality), model.encode(items, modality=modality), atol=1e-5
        )
    # Saving has changed nothing of the model itself, which may be trained further.
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def np_image(seed: int) -> Any:
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (18, 24, 3), dtype=np.uint8))


def test_saved_as_an_adapter_it_is_small_and_finds_its_backbone(tmp_path: Path) -> None:
    model = with_lora(build={"output_dim": 3, "pooling": "attention"})
    folder = model.save(tmp_path / "model", adapter=True)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "finetuner.json", "head.safetensors"
    ]  # fmt: skip
    base = json.loads((folder / "finetuner.json").read_text())["base"]
    assert base["name"] == "acme/letters"
    loaded = load(folder)
    assert np.array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    # It can be trained further, and then saved either way.
    assert lora.has_matrices(loaded)
    np.testing.assert_allclose(load(loaded.save(tmp_path / "merged")).encode(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_an_adapter_of_a_saved_model(tmp_path: Path) -> None:
    base = build_model("letters")
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(-0.5)
    folder = base.save(tmp_path / "base")
    model = load(folder)
    lora.inject(model.tower("text").encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    adapter = model.save(tmp_path / "adapter", adapter=True)
    assert np.array_equal(load(adapter).encode(TEXTS), base.encode(TEXTS))
    build_model("letters").save(folder)
    with pytest.raises(FolderError, match=r"holds an adapter for acme/.*base, whose weights have changed since"):
        load(adapter)


def test_peft_reads_what_was_saved(tmp_path: Path) -> None:
    model = with_lora()
    folder = model.save(tmp_path / "model", adapter=True)
    plain = build_model("letters")
    encoders = plain.tower("text").encoders
    peft.inject_adapter_in_model(peft.LoraConfig.from_pretrained(str(folder)), encoders)
    from safetensors.torch import load_file

    peft.set_peft_model_state_dict(encoders, load_file(folder / lora.ADAPTER_FILE))
    plain.eval()
    assert np.array_equal(plain.encode(TEXTS), model.encode(TEXTS))


def test_a_network_without_linear_layers_has_its_convolutions_wrapped() -> None:
    names = {name.partition(".lora_")[0] for name, _ in with_lora("pixels").named_parameters() if ".lora_" in name}
    assert {name.rpartition(".")[2] for name in names} == {"pixels_in", "pixels_out"}


def test_attention_of_torch_is_wrapped_whole_and_merged() -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    encoders = nn.ModuleDict({"text": nn.ModuleDict({"extractor": nn.ModuleDict({"attention": attention})})})
    items = torch.randn(2, 3, 6)
    before, _ = attention(items, items, items, need_weights=False)
    lora.inject(encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    wrapped = encoders.get_submodule("text.extractor.attention")
    with torch.no_grad():
        for name, parameter in encoders.named_parameters():
            if lora.is_matrix(name):
                parameter.normal_(std=0.2)
    after, _ = wrapped(items, items, items, need_weights=False)
    assert not torch.allclose(before, after, atol=0.01)
    # The network holds the layer under another name.
    network = nn.ModuleDict({"block": nn.ModuleDict({"own": wrapped})})
    merged = lora.merged(network, encoders).get_submodule("block.own")
    assert isinstance(merged, nn.MultiheadAttention)
    torch.testing.assert_close(merged(items, items, items, need_weights=False)[0], after, atol=1e-5, rtol=1e-4)
    assert merged.state_dict().keys() == nn.MultiheadAttention(6, 2).state_dict().keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "query"}, "No layer's name ends in query.\nIts layers end in: letters_out."),
        ({"alpha": 0}, 'lora: alpha is "0"; it must be at least 1.'),
        ({"dropout": -1}, 'lora: dropout is "-1"; it must be at least 0.'),
        ({"rang": 3}, 'lora has no option "rang".'),
    ],
)
def test_what_an_option_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        with_lora(**options)
    assert str(caught.value).startswith(message)


def test_targets_are_chosen_by_the_ends_of_their_names() -> None:
    model = with_lora("both", targets="letters_out,pixels_in")
    names = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert {name.rpartition(".")[2] for name in names} == {"letters_out", "pixels_in"}


def test_what_has_no_adapter_or_no_backbone_to_find_again(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"letters has no adapter to save"):
        build_model("letters").save(tmp_path / "model", adapter=True)
    with pytest.raises(OptionError, match=r"letters started from random weights, which no adapter can find again"):
        with_lora(build={"pretrained": False}).save(tmp_path / "model", adapter=True)
    with pytest.raises(OptionError, match=r"has LoRA matrices already"):
        lora.inject(with_lora().tower("text").encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("damage", ["cut", "renamed", "config"])
def test_a_damaged_adapter(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = with_lora().save(tmp_path / "model", adapter=True)
    file = folder / lora.ADAPTER_FILE
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "renamed":
        save_file({f"{name}.x": tensor for name, tensor in load_file(file).items()}, file)
    else:
        (folder / lora.CONFIG_FILE).write_text("{")
    with pytest.raises(FolderError, match=r"adapter in .* (cannot be read|does not fit its backbone)"):
        load(folder)


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(PluginError, match=r"Install it: pip install finetuner-core\[lora\]"):
        with_lora()
