"""Two towers from any two backbones, and what a model makes of the side that an item is for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetuner_core.errors import FolderError, OptionError
from finetuner_core.interfaces import Batch, Preprocess
from finetuner_core.modeling.build import build_model, load
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import Side

pytestmark = pytest.mark.usefixtures("acme")

TEXTS = ["a", "one that is longer", "", "zwei"]
IMAGES = [Image.fromarray(image) for image in np.random.default_rng(0).integers(0, 256, (3, 18, 24, 3), dtype=np.uint8)]


class Prompted:
    """Another preprocess with a text before each of its own."""

    def __init__(self, inner: Preprocess, prompt: str) -> None:
        self.inner, self.prompt = inner, prompt

    def prepare(self, items: Sequence[object]) -> list[Any]:
        return self.inner.prepare([self.prompt + str(item) for item in items])

    def length(self, prepared: Any) -> int:
        return self.inner.length(prepared)

    def collate(self, prepared: Sequence[Any]) -> Batch:
        return self.inner.collate(prepared)


def disturb(model: EmbeddingModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)


def test_texts_and_images_by_a_backbone_each() -> None:
    model = build_model("pixels", text_model="letters", dropout=0.25)
    assert (model.info.task, model.modalities, model.output_dim) == ("text-to-image", ("text", "image"), 12)
    assert model.info.name == "letters + pixels"
    assert model.encode(TEXTS, modality="text").shape == (4, 12)
    assert model.encode(IMAGES, modality="image").shape == (3, 12)
    # The text tower alone has the option, and its embedding is the letters model's own, projected.
    tower = model.tower("text")
    assert tower.base.options == {"dropout": 0.25}
    projection = model.encoder("text").projection
    assert projection is not None
    alone = build_model("letters")("text", tower.preprocess("text").prepare(TEXTS)) @ projection.weight.T
    projected = torch.nn.functional.normalize(alone, dim=-1)
    np.testing.assert_allclose(model.encode(TEXTS, modality="text"), projected.detach().numpy(), atol=1e-6)


def test_the_side_tells_the_modality_where_nothing_else_does() -> None:
    model = build_model("pixels", text_model="letters", output_dim=5)
    assert np.array_equal(model.encode(TEXTS, side="query"), model.encode(TEXTS, modality="text"))
    assert np.array_equal(model.encode(IMAGES, side="document"), model.encode(IMAGES, modality="image"))
    with pytest.raises(OptionError, match=r"takes more than one modality"):
        model.encode(TEXTS)
    wrong: Any = "left"
    with pytest.raises(OptionError, match='side is "left"; it is "query"'):
        model.encode(TEXTS, side=wrong)


def test_texts_by_two_towers_of_their_own() -> None:
    model = build_model("letters", text_model="letters", pooling="max")
    disturb(model)
    query, document = model.encode(TEXTS, side="query"), model.encode(TEXTS, side="document")
    assert not np.allclose(query, document, atol=0.1)
    assert [tower.pooling for _, tower in model.sided_towers()] == ["mean", "max"]
    with pytest.raises(OptionError, match=r'Say side="query" or side="document"'):
        model.encode(TEXTS)


@pytest.mark.parametrize("name", ["pixels", "letters"])
def test_saved_and_loaded_as_one_model_and_each_tower_by_itself(name: str, tmp_path: Path) -> None:
    model = build_model(name, text_model="letters", output_dim=6, pooling="gem", pooling_options={"p": 2})
    disturb(model)
    items: dict[Side, list[Any]] = {"query": TEXTS, "document": IMAGES if name == "pixels" else TEXTS}
    folder = model.save(tmp_path / "model")
    loaded = load(folder)
    assert loaded.info.modalities == model.info.modalities
    for side, some in items.items():
        assert np.array_equal(loaded.encode(some, side=side), model.encode(some, side=side))
        assert np.array_equal(load(folder / side).encode(some), model.encode(some, side=side))
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
    # It may be replaced, like any saved model, and by one of one tower.
    build_model("letters").save(folder)
    assert not (folder / "query").exists()


def test_a_saved_model_can_be_a_tower_with_the_projection_that_it_has(tmp_path: Path) -> None:
    saved = build_model("letters", output_dim=7)
    disturb(saved)
    folder = str(saved.save(tmp_path / "text"))
    model = build_model("pixels", text_model=folder, output_dim=7)
    assert np.array_equal(model.encode(TEXTS, side="query"), saved.encode(TEXTS))
    with pytest.raises(OptionError, match=r"output_dim is 5, but letters has a projection of its own, to 7"):
        build_model("pixels", text_model=folder, output_dim=5)
    both = str(build_model("letters", text_model="letters").save(tmp_path / "both"))
    with pytest.raises(OptionError, match=f"{both} has two towers itself; give one of them: {both}/query"):
        build_model("letters", text_model=both)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text_model": "pixels"}, "pixels takes image, pixels image"),
        ({"text_model": "letters", "colour": 3}, 'Neither letters nor pixels has an option "colour"'),
        ({"text_model": "letters", "pooling": "cls"}, 'pixels does not support the pooling "cls"'),
        ({"text_model": "letters", "output_dim": 0}, "output_dim is 0"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        build_model("pixels", **settings)


def test_a_folder_whose_tower_is_gone(tmp_path: Path) -> None:
    folder = build_model("pixels", text_model="letters").save(tmp_path / "model")
    (folder / "document" / "config.json").unlink()
    with pytest.raises(FolderError, match=r"model/document is not complete"):
        load(folder)
    content = json.loads((folder / "query" / "finetuner.json").read_text())
    (folder / "query" / "finetuner.json").write_text(json.dumps(content | {"format_version": 9}))
    with pytest.raises(FolderError, match='has format version "9"'):
        load(folder)


def test_each_side_is_fed_in_its_own_way() -> None:
    model = build_model("letters")
    tower = model.tower("text")
    plain = tower.loaded.preprocess["text"]
    tower.loaded = replace(tower.loaded, sides={"query": Prompted(plain, "ask: ")})
    expected = model.encode(["ask: " + text for text in TEXTS])
    assert np.array_equal(model.encode(TEXTS, side="query"), expected)
    assert np.array_equal(model.encode(TEXTS, side="document"), model.encode(TEXTS))
    assert not np.allclose(model.encode(TEXTS, side="query"), model.encode(TEXTS))
