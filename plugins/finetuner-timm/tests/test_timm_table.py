"""The rows of the table at real size, by their exact names, from a cache as `hf download` leaves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import finetuner
from finetuner_core.plugin import BackboneInfo
from finetuner_timm import plugin, rows


def weights_like(name: str) -> dict[str, torch.Tensor]:
    """Random weights of an architecture, classifier included, drawn without building it."""
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    generator = torch.Generator().manual_seed(0)
    made = {}
    for key, like in shapes.items():
        tensor = torch.empty(like.shape, dtype=like.dtype)
        if not tensor.is_floating_point():
            tensor.zero_()
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(std=0.02, generator=generator)
        made[key] = tensor
    return made


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_row_builds_by_its_bare_name_from_the_cache_and_says_the_truth(
    row: BackboneInfo, put_into_cache: Callable[[str], Path], pictures: list[Image.Image]
) -> None:
    weights = weights_like(row.name)
    repository = row.source.removeprefix("https://huggingface.co/")
    save_file(weights, put_into_cache(repository) / "model.safetensors", metadata={"format": "pt"})

    model = finetuner.build_model(row.name)

    state = model.encoder("image").extractor.state_dict()
    assert {key.removeprefix("network.") for key in state} == {
        key for key in weights if not key.startswith(("fc.", "classifier."))
    }
    assert all(torch.equal(tensor, weights[key.removeprefix("network.")]) for key, tensor in state.items())
    assert model.encode(pictures[:1]).shape == (1, row.output_dim)
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    assert model.new_weights == []


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_row_that_is_found_says_what_the_listed_one_says(row: BackboneInfo) -> None:
    found = plugin.find_backbone(row.name)
    assert found is not None
    same = ("name", "task", "output_dim", "poolings", "options", "source", "parameters")
    assert [getattr(found, field) for field in same] == [getattr(row, field) for field in same]
    assert found.licence.lower() == row.licence.lower()
