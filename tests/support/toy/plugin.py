"""The light half of the toy plugin."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetuner_core.plugin import BackboneInfo, LossInfo, Modality, OptionValue, PoolingInfo, hookimpl
from toy import fault

if TYPE_CHECKING:
    from torch import nn

    from finetuner_core.interfaces import FeatureExtractor, LoadedBackbone, Pooling

if fault("torch imported at the top"):
    import torch  # noqa: F401

WIDTH = 16
_calls = itertools.count()


def _row(name: str) -> BackboneInfo:
    width = WIDTH + 1 if fault("width misreported in row") or fault("width misreported everywhere") else WIDTH
    return BackboneInfo(name, "text-to-text", width, "toy", "Words, embedded", poolings=("mean", "native"))


@hookimpl
def list_backbones() -> Iterable[BackboneInfo]:
    yield _row("words")
    if fault("network asked while listing"):
        with contextlib.suppress(OSError):
            socket.create_connection(("weights.invalid", 443))
    if fault("rows that change"):
        yield _row(f"words-{next(_calls)}")
    if fault("rows in the order of a set"):
        yield from map(_row, {f"words-{letter}" for letter in "abcdefghij"})
    if fault("a pooling that there is not"):
        yield BackboneInfo("others", "text-to-text", WIDTH, "toy", "", poolings=("mean", "median"))
    if fault("width unknown"):
        yield BackboneInfo("others", "text-to-text", None, "toy", "")


@hookimpl
def find_backbone(name: str) -> BackboneInfo | None:
    config = Path(name) / "config.json"
    return _row(name) if config.is_file() and "toy" in json.loads(config.read_text()) else None


@hookimpl
def load_backbone(info: BackboneInfo, pretrained: bool) -> LoadedBackbone:
    from toy import networks

    return networks.load(info, pretrained)


@hookimpl
def strip_head(loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    from toy import networks

    return networks.strip(loaded, pooling)


@hookimpl
def list_poolings() -> Iterable[PoolingInfo]:
    return (PoolingInfo("scaled", "A mean, each feature of which is scaled"),)


@hookimpl
def build_pooling(dim: int) -> Pooling:
    from toy import parts

    return parts.Scaled(dim)


@hookimpl
def list_losses() -> Iterable[LossInfo]:
    return (
        LossInfo("spread", "Different ones apart, like ones together"),
        LossInfo("ranked", "Candidates as near as their scores", forms=("scored",)),
    )


@hookimpl
def build_loss(info: LossInfo, options: Mapping[str, OptionValue]) -> nn.Module:
    from toy import parts

    return parts.Ranked() if info.name == "ranked" else parts.Spread()
