"""Exported to ONNX, a network of timm gives its vectors by onnxruntime and numpy alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetuner

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")


def alone(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    """What a person without Finetuner writes: a shorter side of one length, the middle, mean and deviation."""
    told = json.loads((folder / "export.json").read_text())["parts"][0]["feeding"]
    (resize,) = (step for step in told["resize"] if step["step"] == "Resize")
    height, width = told["image_size"]
    pixels = []
    for picture in pictures:
        scale = resize["size"] / min(picture.size)
        resized = picture.resize(
            tuple(max(resize["size"], int(side * scale)) for side in picture.size),
            Image.Resampling[resize["interpolation"].upper()],
        )
        left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
        values = np.asarray(resized.crop((left, top, left + width, top + height)), np.float32) / 255
        pixels.append(((values - told["mean"]) / told["std"]).transpose(2, 0, 1))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    vectors: np.ndarray = session.run(None, {"pixels": np.stack(pixels).astype(np.float32)})[0]
    return vectors


@pytest.mark.parametrize(("name", "pooling"), [("test_resnet", "native"), ("test_vit", "gem")])
def test_an_image_model_alone(name: str, pooling: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    model = finetuner.build_model(f"timm/{name}", pretrained=False, pooling=pooling, output_dim=12)
    finetuner.export(model, tmp_path / "onnx")
    for some in (pictures, pictures[:1]):
        assert np.abs(alone(tmp_path / "onnx", some) - model.encode(some)).max() <= 1e-4
