"""A model is trained on pairs of texts and pictures, saved and opened again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetuner

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "grey": (120, 120, 120)}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A table of texts and pictures."""
    file = tmp_path / "pairs.csv"
    with file.open("w", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["text", "image"])
        for name, colour in COLOURS.items():
            for side in (48, 60):
                Image.new("RGB", (side, side), colour).save(tmp_path / f"{name}{side}.png")
                table.writerow([f"a {name} square of {side}", f"{name}{side}.png"])
    return file


@pytest.mark.parametrize("freeze", [None, 1])
def test_training_on_pairs_changes_both_towers_and_opens_again(pairs: Path, tmp_path: Path, freeze: int | None) -> None:
    model = finetuner.build_model("openclip/tiny_vit", pretrained=False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = finetuner.fit(
        model, pairs, out=tmp_path / "trained", epochs=1, batch_size=4, freeze=freeze, learning_rate=1e-3
    )
    after = dict(trained.model.named_parameters())
    kept = {name for name, parameter in before.items() if np.array_equal(parameter, after[name].detach())}
    frozen = ("token_embedding", "positional_embedding", "class_embedding", "conv1", "ln_pre")
    assert kept == {name for name in before if freeze and any(part in name for part in frozen)}

    texts, opened = [f"a {name} square" for name in COLOURS], finetuner.load(tmp_path / "trained")
    assert np.array_equal(opened.encode(texts, modality="text"), trained.model.encode(texts, modality="text"))
