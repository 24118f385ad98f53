"""A model is trained on pairs of texts and pictures, saved and opened again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetuner


@pytest.mark.parametrize("freeze", [None, 1])
def test_training_on_pairs_changes_both_towers_and_opens_again(tmp_path: Path, freeze: int | None) -> None:
    colours = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "grey": (120, 120, 120)}
    lines = []
    for name, colour in colours.items():
        for side in (48, 60):
            file = tmp_path / f"{name}{side}.png"
            Image.new("RGB", (side, side), colour).save(file)
            lines.append({"text": f"a {name} square of {side}", "image": str(file)})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = finetuner.fit(
        "openclip/tiny_vit",
        str(tmp_path / "pairs.jsonl"),
        out=tmp_path / "trained",
        pretrained=False,
        epochs=2,
        batch_size=4,
        freeze=freeze,
        learning_rate=1e-3,
    )
    opened = finetuner.load(tmp_path / "trained")
    texts = [line["text"] for line in lines]
    assert np.array_equal(opened.encode(texts, modality="text"), result.model.encode(texts, modality="text"))
