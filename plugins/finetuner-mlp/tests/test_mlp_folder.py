"""Saving, opening again, and whose folder is whose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import finetuner
from finetuner_core.errors import OptionError, UnknownNameError, WeightsError
from finetuner_mlp import plugin

VECTORS = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)


def saved(folder: Path) -> finetuner.EmbeddingModel:
    model = finetuner.build_model("mlp", input_size=6, hidden_sizes=(8, 4), activation="silu", bias=False, dropout=0.1)
    model.save(folder)
    return model


def test_a_saved_model_opens_bit_by_bit(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    opened = finetuner.load(tmp_path / "model")
    assert np.array_equal(opened.encode(VECTORS), model.encode(VECTORS))
    opened.save(tmp_path / "again")
    assert np.array_equal(finetuner.load(tmp_path / "again").encode(VECTORS), model.encode(VECTORS))


def test_a_saved_model_is_json_and_safetensors(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "README.md",
        "config.json",
        "finetuner.json",
        "model.safetensors",
    }


def test_its_backbone_alone_is_a_folder_of_the_plugin(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    (tmp_path / "model" / "finetuner.json").unlink()
    opened = finetuner.build_model(str(tmp_path / "model"))
    assert opened.info.output_dim == 4
    assert np.array_equal(opened.encode(VECTORS), model.encode(VECTORS))


@pytest.mark.parametrize("config", [None, "{", "[]", '{"architecture": "resnet18"}', '{"model_type": "bert"}', '"mlp"'])
def test_a_folder_of_another_format_is_not_claimed(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert plugin.find_backbone(str(tmp_path)) is None


def test_a_folder_never_shadows_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "mlp")
    saved(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert finetuner.build_model("mlp", input_size=2).output_dim == 256
    with pytest.raises(UnknownNameError, match='knows no model "other"'):
        finetuner.build_model("mlp/other")


def test_a_changed_setting_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"activation": "sine"}))
    with pytest.raises(OptionError, match='activation is "sine"'):
        finetuner.load(tmp_path / "model")


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_weights_that_do_not_fit_are_refused_with_the_folder(tmp_path: Path, damage: str) -> None:
    saved(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:50])
    else:
        finetuner.build_model("mlp", input_size=6, hidden_sizes=(8, 8)).save(tmp_path / "wider")
        (tmp_path / "wider" / "model.safetensors").replace(weights)
    with pytest.raises(WeightsError, match=r"The weights in .*model cannot be loaded"):
        finetuner.load(tmp_path / "model")


def test_search_names_the_row() -> None:
    assert list(plugin.find_backbone_names("ml*")) == ["mlp"]
    assert list(plugin.find_backbone_names("resnet*")) == []


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, finetuner_mlp.plugin; print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
