"""Networks of timm are trained from a cache as they are without one, wherever they are frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.modeling.build import build_model
from finetuner_core.training.feed import Feed, feeds_of
from finetuner_core.training.freezing import batch_statistics, freeze
from finetuner_core.training.frozen.feeds import CachedFeed, cached_feeds

NAMES = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_mambaout")


def gradients(feed: Feed, rows: list[int], dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Embeddings of some rows, and what training would get of them."""
    trained = [parameter for parameter in feed.encoder.parameters() if parameter.requires_grad]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        embedded = feed.encoder(feed.collate(feed.prepare(rows, torch.Generator())))
    weights = torch.linspace(-1, 1, embedded.numel()).view_as(embedded)
    found = torch.autograd.grad((embedded * weights).sum(), trained, allow_unused=True)
    return embedded, [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("pooling", ["native", "attention"])
@pytest.mark.parametrize("what", [1, 2, 3, "backbone"])
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_and_gradients_are_those_without_a_cache(
    name: str, what: int | str, pooling: str, pictures: list[Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build_model(f"timm/{name}", pretrained=False, output_dim=4, pooling=pooling)
    frozen = [*freeze(model, what), *batch_statistics(model)]
    data = Dataset((Column("image", "image", pictures),), list("aabbccdd"))
    (live,) = feeds_of(model, data, None)
    made = cached_feeds(model, data, [live], frozen, folder=tmp_path, dtype=torch.float32)
    (cached,) = made.feeds
    assert isinstance(cached, CachedFeed), made.said
    for rows in ([3, 1, 4, 1, 5], [2]):
        expected, found = gradients(live, rows, torch.float32), gradients(cached, rows, torch.float32)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_in_bfloat16_and_channels_last_it_is_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    data = Dataset((Column("image", "image", [Image.fromarray(own) for own in pixels]),), list("aabbccdd"))
    model = build_model("timm/test_resnet", pretrained=False, output_dim=4)
    frozen = [*freeze(model, 2), *batch_statistics(model)]
    (live,) = feeds_of(model, data, None)
    (cached,) = cached_feeds(model, data, [live], frozen, folder=tmp_path, dtype=torch.bfloat16).feeds
    expected, found = gradients(live, [1, 2, 3], torch.bfloat16), gradients(cached, [1, 2, 3], torch.bfloat16)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-3)
    (kept,) = (
        value for name, value in cached.collate(cached.prepare([1, 2], torch.Generator())).items() if "0" in name
    )
    assert kept.dtype is torch.bfloat16
    assert kept.is_contiguous(memory_format=torch.channels_last)
