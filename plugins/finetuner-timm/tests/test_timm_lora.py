"""LoRA beside the layers of a vision transformer, and beside the convolutions of a network that has no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

import finetuner
from finetuner_core.modeling import lora
from finetuner_core.values import resolve_options
from finetuner_timm.library import timm


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_every_matrix_is_reached_and_saved_either_way(name: str, tmp_path: Path, pictures: Sequence[Image]) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name)
    with torch.no_grad():
        for parameter in network.parameters():  # of which some start at zero, and hide what stands behind them
            parameter.add_(torch.randn_like(parameter) * 0.1)
    timm.models.save_for_hf(network, tmp_path / "base", model_config={"num_classes": 1000})
    model = finetuner.build_model(str(tmp_path / "base"))
    before = model.encode(pictures)
    lora.inject(model.tower("image").encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    matrices = {path: matrix for path, matrix in model.named_parameters() if lora.is_matrix(path)}
    with torch.no_grad():
        for number, matrix in enumerate(matrices.values()):
            matrix.copy_(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(number)) * 0.2)
    vectors = model.encode(pictures)
    assert not np.allclose(vectors, before, atol=1e-3)
    embedded = model("image", model.preprocess("image").prepare(pictures))
    (embedded * torch.linspace(-1, 1, embedded.numel()).view(embedded.shape)).sum().backward()
    assert not [path for path, matrix in matrices.items() if matrix.grad is None or not matrix.grad.any()]
    for adapter in (True, False):
        folder = model.save(tmp_path / str(adapter), adapter=adapter)
        np.testing.assert_allclose(finetuner.load(folder).encode(pictures), vectors, rtol=0, atol=1e-5)
    # Merged it is a plain model of timm.
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 0
