"""Folders that somebody has made to do harm: refused before memory is taken, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import finetuner
from finetuner_core.errors import FinetunerError

Harm = Callable[[Path], Any]


def config(**changes: object) -> Harm:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Harm:
    def write(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file({name: change(tensor).contiguous() for name, tensor in load_file(file).items()}, file)

    return write


ZOO: dict[str, tuple[Harm, str]] = {
    "a layer of terabytes": (config(hidden_sizes=[1 << 40]), "config.json asks for"),
    "a second layer of terabytes": (config(hidden_sizes=[8, 1 << 30, 1 << 30, 4]), "config.json asks for"),
    "an activation of another library": (config(activation="os.system"), "activation"),
    "an option that nobody has": (config(command="evil"), "command"),
    "half the weights": (weights(lambda tensor: tensor[:1]), "has the shape"),
    "whole numbers": (weights(lambda tensor: tensor.long()), "and no floats"),
    "complex numbers": (weights(lambda tensor: tensor.to(torch.complex64)), "and no floats"),
    "NaN": (weights(lambda tensor: tensor * torch.nan), "hold NaN"),
    "a thousand levels": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "finds no backbone"),
}


@pytest.mark.parametrize("animal", ZOO)
def test_a_hostile_folder_is_refused(animal: str, tmp_path: Path) -> None:
    folder = finetuner.build_model("mlp", input_size=6, hidden_sizes=(8, 4)).save(tmp_path / "model")
    harm, expected = ZOO[animal]
    harm(folder)
    tracemalloc.start()
    with pytest.raises(FinetunerError) as error:
        finetuner.load(folder)
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.canary), "w")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_weights_is_not_read(how: str, tmp_path: Path) -> None:
    folder = finetuner.build_model("mlp", input_size=6, hidden_sizes=(8, 4)).save(tmp_path / "model")
    if how == "pickle":
        (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    else:
        torch.save(Bomb(tmp_path / "canary"), folder / "model.safetensors")
    with pytest.raises(FinetunerError, match="cannot be loaded"):
        finetuner.load(folder)
    assert not (tmp_path / "canary").exists()
