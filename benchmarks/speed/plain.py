"""A loop over a timm model with a loss of pytorch-metric-learning, as tutorials write it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import timm
import torch
from PIL import Image
from pytorch_metric_learning import losses
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.turns import Turns
from benchmarks.speed.work import Work

IMAGE_WIDTH = 1280
"""Of mobilenetv2_100's embedding."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images from files, and a number for each label."""

    def __init__(self, work: Work, transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = work.pictures, transform
        numbers = {label: number for number, label in enumerate(sorted(set(work.labels)))}
        self.labels = [numbers[label] for label in work.labels]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def image_training(
    turns: Turns, work: Work, *, channels_last: bool = False, bf16: bool = False, workers: int = 0
) -> None:
    """A turn is a step over labelled images, from random weights."""
    trunk = timm.create_model(work.model, pretrained=False, num_classes=0).to(work.device)
    if channels_last:
        trunk = trunk.to(memory_format=torch.channels_last)
    transform = _transform(trunk, is_training=True)
    loader = DataLoader(Pictures(work, transform), batch_sampler=work.batches(), num_workers=workers)
    criterion = losses.NTXentLoss(temperature=0.05)
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=5e-4, weight_decay=0.01)
    trunk.train()
    turns.ready()
    for images, labels in loader:
        images = images.to(work.device, **({"memory_format": torch.channels_last} if channels_last else {}))
        optimizer.zero_grad()
        with torch.autocast(work.device, torch.bfloat16) if bf16 else contextlib.nullcontext():
            embeddings = trunk(images)
        loss = criterion(embeddings.float(), labels.to(work.device))
        loss.backward()
        optimizer.step()
        turns.end(items=len(labels), loss=loss.item())


def frozen_images(turns: Turns, work: Work) -> None:
    """A turn is a whole run with the trunk frozen and a layer that is trained."""
    trunk = timm.create_model(work.model, pretrained=False, num_classes=0).to(work.device).eval()
    for parameter in trunk.parameters():
        parameter.requires_grad = False
    head = nn.Linear(IMAGE_WIDTH, 256, bias=False).to(work.device)
    turns.ready()
    transform = _transform(trunk, is_training=False)
    loader = DataLoader(Pictures(work, transform), batch_size=work.batch_size, shuffle=True)
    criterion = losses.NTXentLoss(temperature=0.05)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(work.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(head(trunk(images.to(work.device))), labels.to(work.device))
            loss.backward()
            optimizer.step()
    turns.end(items=work.epochs * len(work.labels))


def _transform(trunk: nn.Module, *, is_training: bool) -> Callable[[Image.Image], Tensor]:
    config = resolve_model_data_config(trunk)  # type: ignore[no-untyped-call]
    transform: Callable[[Image.Image], Tensor] = create_transform(**config, is_training=is_training)
    return transform
