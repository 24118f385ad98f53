"""The embedding model: encoding raw items, and saving."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from finetuner_core.artifacts.saved import find_row
from finetuner_core.errors import DataError, FolderError, OptionError
from finetuner_core.interfaces import LoadedBackbone
from finetuner_core.modeling import embedding_model
from finetuner_core.modeling import tower as tower_module
from finetuner_core.modeling.build import build_model, load
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.tower import HEAD_FILE, Tower

pytestmark = pytest.mark.usefixtures("acme")

TEXTS = ["a", "one that is much longer than the others", "", "zwei", "bcd", "e" * 30, "ü€", "f g", "h", "ij"]
# Each backbone with each of its poolings.
BUILDS = [
    ("letters", "mean"),
    ("letters", "cls"),
    ("letters", "max"),
    ("pixels", "native"),
    ("pixels", "mean"),
    ("both", "native"),
    ("numbers", "native"),
]


def build(name: str, **settings: Any) -> EmbeddingModel:
    options: dict[str, Any] = {"input_size": 5} if name == "numbers" else {}
    return build_model(name, **options, **settings)


def images(count: int = 3) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 18, 24, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


ITEMS: dict[str, Any] = {
    "text": TEXTS,
    "image": images(),
    "vector": np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32),
}


def disturb(model: EmbeddingModel) -> None:
    """Moves every number that the model holds, so that none is what a new model starts with."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) / 10)


@pytest.mark.parametrize(("name", "pooling"), BUILDS)
@pytest.mark.parametrize("output_dim", [None, 3, 20])
def test_rows_are_float32_of_length_1_and_of_the_width_that_was_promised(
    name: str, pooling: str, output_dim: int | None
) -> None:
    model = build(name, pooling=pooling, output_dim=output_dim)
    assert not model.training
    for modality in model.modalities:
        vectors = model.encode(ITEMS[modality], modality=modality)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(ITEMS[modality]), model.output_dim)
        assert model.output_dim == (output_dim or model.info.output_dim or 6)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_neither_company_nor_order_changes_an_embedding(pooling: str, batch_size: int | None) -> None:
    model = build("letters", pooling=pooling)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=batch_size), alone, atol=1e-6)


def test_items_are_prepared_in_windows_and_batched_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("letters")
    expected = model.encode(TEXTS)
    preprocess = model.preprocess("text")
    prepared: list[int] = []
    collated: list[list[int]] = []

    def prepare(items: Sequence[object], real: Any = preprocess.prepare) -> Any:
        prepared.append(len(items))
        return real(items)

    def collate(items: Sequence[Any], real: Any = preprocess.collate) -> Any:
        collated.append([len(item) for item in items])
        return real(items)

    monkeypatch.setattr(preprocess, "prepare", prepare)
    monkeypatch.setattr(preprocess, "collate", collate)
    monkeypatch.setattr(embedding_model, "_WINDOW", {"text": 4})
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=3), expected, atol=1e-6)
    assert prepared == [4, 4, 2]
    assert [len(batch) for batch in collated] == [3, 1, 3, 1, 2]
    assert all(batch == sorted(batch, reverse=True) for batch in collated)


@pytest.mark.parametrize("name", ["letters", "pixels", "numbers"])
def test_of_nothing_there_are_no_embeddings(name: str) -> None:
    model = build(name)
    empty: Any = np.empty((0, 5)) if name == "numbers" else []
    assert model.encode(empty).shape == (0, model.output_dim)


def test_images_are_taken_as_paths_and_as_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, images(), strict=True):
        image.save(path)
    model = build("pixels")
    expected = model.encode(images())
    assert np.array_equal(model.encode(paths), expected)
    assert np.array_equal(model.encode([str(path) for path in paths]), expected)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("one text", "a list of items, not one str"),
        (b"bytes", "not one bytes"),
        (Path("image.png"), r"not one \w*Path"),
        (images(1)[0], "not one Image"),
        ((text for text in TEXTS), "not one generator"),
        (["a", 5], 'Item 1 is a int, not a text: "5"'),
        (["a", "b", None], 'Item 2 is a NoneType, not a text: "None"'),
    ],
)
def test_what_is_no_list_of_texts_is_refused(items: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        build("letters").encode(items)


def test_a_wrong_item_is_named_by_its_place_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_model, "_WINDOW", {"text": 2})
    with pytest.raises(DataError, match="Item 5 is a float"):
        build("letters").encode(["a"] * 5 + [0.5])


@pytest.mark.parametrize(
    ("name", "modality", "words"),
    [
        ("both", None, 'both takes more than one modality.\nSay modality="text" or modality="image"'),
        ("both", "vector", 'both does not take "vector"'),
        ("letters", "image", 'letters does not take "image".\nSay modality="text"'),
    ],
)
def test_a_model_says_what_it_takes(name: str, modality: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        build(name).encode(["a"], modality=modality)


def test_a_batch_has_an_item() -> None:
    with pytest.raises(OptionError, match="batch_size is 0; it must be at least 1"):
        build("letters").encode(["a"], batch_size=0)


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_every_module_is_in_the_mode_it_was(fails: bool) -> None:
    model = build("letters", dropout=0.5)
    model.train()
    # As a frozen part of a model that is being trained.
    frozen = model.encoder("text").extractor.get_submodule("network.letters_in")
    frozen.eval()
    modes = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(DataError):
            model.encode(["a", 1])
    else:
        # Without dropout, or two calls would differ.
        assert np.array_equal(model.encode(TEXTS), model.encode(TEXTS))
    assert [module.training for module in model.modules()] == modes


def test_encoding_leaves_no_graph() -> None:
    model = build("letters")
    model.encode(TEXTS)
    vectors = model("text", model.preprocess("text").prepare(TEXTS))
    assert vectors.requires_grad


@pytest.mark.parametrize(("name", "pooling"), BUILDS)
@pytest.mark.parametrize("output_dim", [None, 3])
def test_a_saved_model_is_the_same_bit_by_bit(name: str, pooling: str, output_dim: int | None, tmp_path: Path) -> None:
    model = build(name, pooling=pooling, output_dim=output_dim)
    disturb(model)
    path = model.save(tmp_path / "model")
    assert path == tmp_path / "model"
    assert {file.suffix for file in path.iterdir()} == {".json", ".md", ".safetensors"}
    loaded = load(path)
    row = dataclasses.replace(model.info, poolings=(pooling,), options=(), output_dim=model.output_dim)
    assert loaded.info == find_row(str(path)) == row
    assert (loaded.pooling, loaded.output_dim) == (pooling, model.output_dim)
    assert loaded.info.namespace == "acme"
    for modality in model.modalities:
        expected = model.encode(ITEMS[modality], modality=modality)
        assert np.array_equal(loaded.encode(ITEMS[modality], modality=modality), expected)
    # And once more: what was loaded can be saved.
    again = load(loaded.save(tmp_path / "again"))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_the_projection_is_told_apart_for_each_modality(tmp_path: Path) -> None:
    model = build("both", output_dim=3)
    disturb(model)
    loaded = load(model.save(tmp_path / "model"))
    weights = [loaded.encoder(modality).projection for modality in ("text", "image")]
    assert isinstance(weights[0], nn.Linear)
    assert isinstance(weights[1], nn.Linear)
    assert not torch.equal(weights[0].weight, weights[1].weight)


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = build("letters", output_dim=3).save(tmp_path / "model")
    other = build("letters", output_dim=4).save(tmp_path / "other")
    (other / HEAD_FILE).replace(path / HEAD_FILE)
    with pytest.raises(FolderError, match=r"it holds .*\(4, 16\), and expected is .*\(3, 16\)"):
        load(path)
    (path / HEAD_FILE).unlink()
    with pytest.raises(FolderError, match=r"head.safetensors does not fit the model: it holds nothing"):
        load(path)


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    path = build("letters", output_dim=3).save(tmp_path / "model")
    content = (path / HEAD_FILE).read_bytes()
    (path / HEAD_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(FolderError, match=r"head.safetensors cannot be read"):
        load(path)


def test_a_disk_that_refuses_safetensors_is_told_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    # A folder that is not there stands for any reason that the disk has.
    monkeypatch.setattr(tower_module, "save_file", lambda tensors, file: save_file(tensors, tmp_path / "no" / "x"))
    with pytest.raises(FolderError, match=r'model" cannot be written: .*No such file'):
        build("letters", output_dim=3).save(tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


def test_new_weights_are_those_that_were_kept() -> None:
    model = build("letters")
    tower = model.tower("text")
    new = ("head.weight", "letters_out.bias", "letters_in.weight")
    rebuilt = EmbeddingModel(
        Tower(
            info=tower.info,
            base=tower.base,
            pooling="mean",
            pooling_options={},
            encoders={"text": tower.encoder("text")},
            loaded=dataclasses.replace(tower.loaded, new_weights=new),
            pretrained=True,
        )
    )
    assert rebuilt.new_weights == ["letters_out.bias", "letters_in.weight"]
    assert model.new_weights == []


def test_a_copy_saves_its_own_weights(tmp_path: Path) -> None:
    model = build_model("letters")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(-0.5)
    saved = load(copied.save(tmp_path / "copy"))
    assert np.array_equal(saved.encode(["ab", "c"]), copied.encode(["ab", "c"]))
    assert not np.array_equal(saved.encode(["ab", "c"]), model.encode(["ab", "c"]))


@pytest.mark.usefixtures("acme")
def test_weights_that_start_untrained_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from acme import networks

    load_backbone = networks.load

    def incomplete(*arguments: Any) -> LoadedBackbone:
        new = ("head.weight", "letters_out.bias", "letters_in.weight")
        return dataclasses.replace(load_backbone(*arguments), new_weights=new)

    monkeypatch.setattr(networks, "load", incomplete)
    assert build_model("letters").new_weights == ["letters_out.bias", "letters_in.weight"]
    assert caplog.messages == [
        "letters: 2 weights were not in the checkpoint and start untrained: letters_out.bias, letters_in.weight"
    ]
