"""What has to change a fingerprint does, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import finetuner
from finetuner_core.data.cells import ArrowCells
from finetuner_core.data.dataset import Column
from finetuner_core.data.slices import TarSlice
from finetuner_core.encoding.fingerprint import of_items, of_model
from finetuner_core.errors import DataError

pytestmark = pytest.mark.usefixtures("acme")


def change_a_weight(model: finetuner.EmbeddingModel) -> None:
    with torch.no_grad():
        next(model.parameters()).view(-1)[-1] += 1e-6


def change_the_tokenizer(model: finetuner.EmbeddingModel) -> None:
    preprocess = model.preprocess("text")
    real = preprocess.prepare
    preprocess.prepare = lambda items: real([str(item).lower() for item in items])  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [change_a_weight, change_the_tokenizer])
def test_of_a_model(change: Callable[[finetuner.EmbeddingModel], None], tmp_path: Path) -> None:
    model = finetuner.build_model("letters")
    before = of_model(model, "text", None)
    model.save(tmp_path / "model")
    assert of_model(finetuner.load(tmp_path / "model"), "text", None) == before
    change(model)
    assert of_model(model, "text", None) != before


def test_of_poolings_and_modalities() -> None:
    of_each = [
        of_model(finetuner.build_model("letters"), "text", None),
        of_model(finetuner.build_model("letters", pooling="max"), "text", None),
        of_model(finetuner.build_model("both"), "text", None),
        of_model(finetuner.build_model("both"), "image", None),
        of_model(finetuner.build_model("numbers", input_size=3), "vector", None),
    ]
    assert len({*of_each}) == len(of_each)


def test_of_texts() -> None:
    pa = pytest.importorskip("pyarrow")
    texts = ["one", "two", "", "\ud800"]
    same = of_items(Column("a", "text", texts))
    assert of_items(Column("b", "text", tuple(texts))) == same
    cells = ArrowCells(pa.chunked_array([["one"], ["two", ""]]))
    assert of_items(Column("b", "text", cells)) == of_items(Column("a", "text", texts[:3]))
    others: list[list[object]] = [["one", "two", "", ""], ["onet", "wo", "", "\ud800"], ["two", "one", "", "\ud800"]]
    for other in others:
        assert of_items(Column("a", "text", other)) != same
    with pytest.raises(DataError, match=r"Item 1 is a int, not a text: \"7\"\."):
        of_items(Column("a", "text", ["one", 7]))


def test_of_vectors() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    same = of_items(Column("a", "vector", vectors))
    assert of_items(Column("a", "vector", np.asfortranarray(vectors))) == same
    for other in (vectors + 1, vectors[::-1], vectors[:3]):
        assert of_items(Column("a", "vector", other)) != same


def test_of_images(tmp_path: Path) -> None:
    picture, path = Image.new("RGB", (4, 4)), tmp_path / "a.png"
    picture.save(path)
    of_path = of_items(Column("a", "image", [path]))
    assert of_items(Column("a", "image", [str(path)])) == of_path
    os.utime(path, (1, 1))
    assert of_items(Column("a", "image", [path])) != of_path
    in_memory = of_items(Column("a", "image", [picture]))
    assert in_memory == of_items(Column("a", "image", [picture.copy()]))
    assert in_memory != of_items(Column("a", "image", [Image.new("RGB", (4, 4), "red")]))
    of_items(Column("a", "image", [path.read_bytes()]))
    path.unlink()
    of_items(Column("a", "image", [path]))  # that it is not there is said where it is opened


def test_of_images_in_a_tar(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"content that nobody opens")

    def of(*places: tuple[str, int, int]) -> str:
        return of_items(Column("a", "image", [TarSlice(tar, *place) for place in places]))

    same = of(("1.png", 0, 5), ("2.png", 5, 5))
    assert of(("1.png", 0, 5), ("2.png", 5, 5)) == same
    for other in (("3.png", 5, 5), ("2.png", 6, 5), ("2.png", 5, 6)):
        assert of(("1.png", 0, 5), other) != same
    os.utime(tar, (1, 1))
    assert of(("1.png", 0, 5), ("2.png", 5, 5)) != same
