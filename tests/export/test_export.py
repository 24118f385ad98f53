"""Exports: whole or not there, measured, and refused with a word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import finetuner
from finetuner_core.errors import ExportError, FolderError, OptionError
from finetuner_core.export import export as module
from finetuner_core.export.int8 import check_cosine, cosines
from finetuner_core.modeling.embedding_model import EmbeddingModel

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.usefixtures("acme"), pytest.mark.filterwarnings("ignore")]

TEXTS = ["a cat", "dog", "the quick brown fox jumps", "red shoes", "x"]


@pytest.fixture
def model() -> EmbeddingModel:
    return finetuner.build_model("acme/letters", pooling="mean", output_dim=5)


def test_the_graph_gives_the_models_vectors(model: EmbeddingModel, tmp_path: Path) -> None:
    result = finetuner.export(model, tmp_path / "onnx", data=TEXTS)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    preprocess = model.preprocess("text")
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3] * 9):
        batch = preprocess.collate(preprocess.prepare(texts))
        feed = {one.name: batch[one.name].numpy() for one in session.get_inputs()}
        assert np.abs(session.run(None, feed)[0] - model.encode(texts)).max() <= 1e-5
    told = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert told["output_dim"] == 5
    assert told["parts"][0]["file"] == "model.onnx"
    assert told["files"] == ["model.onnx"]
    assert result.parts[0].difference <= 1e-5
    # An export may be replaced, and nothing else.
    finetuner.export(model, tmp_path / "onnx", data=TEXTS)
    (tmp_path / "onnx" / "notes").write_text("mine")
    with pytest.raises(FolderError, match="notes"):
        finetuner.export(model, tmp_path / "onnx", data=TEXTS)


def test_other_vectors_are_refused(model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_by_torch", lambda part, encoder, prepared: np.zeros((len(prepared), 5), np.float32))
    with pytest.raises(ExportError, match="gives other vectors than the model: a number differs by"):
        finetuner.export(model, tmp_path / "onnx", data=TEXTS)
    assert not (tmp_path / "onnx").exists()


def test_another_form(model: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match='to is "tflite"; a model can be exported to onnx'):
        finetuner.export(model, tmp_path / "out", to="tflite")


def test_too_few_items(model: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="2 items are too few"):
        finetuner.export(model, tmp_path / "out", data=TEXTS[:2])


def test_cosines_and_their_bound() -> None:
    exact, rounded = np.array([[1.0, 0], [0, 2]]), np.array([[1.0, 0], [1, 1]])
    assert cosines(exact, rounded) == pytest.approx(((1 + 0.5**0.5) / 2, 0.5**0.5))
    check_cosine(0.95, 0.2, "texts")
    for mean in (0.89, float("nan")):
        with pytest.raises(ExportError, match=r"below 0\.9: they would be another model's"):
            check_cosine(mean, 0.2, "texts")
