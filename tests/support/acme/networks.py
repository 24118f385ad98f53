"""The heavy half of the toy plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import nn

from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Preprocess, Stage
from finetuner_core.plugin import BackboneInfo, DataError, Modality, OptionValue

SIZE = 16
LETTERS = 128


class LetterPreprocess:
    def prepare(self, items: Sequence[object]) -> list[list[int]]:
        return [[1 + ord(letter) % (LETTERS - 1) for letter in str(item)] or [1] for item in items]

    def length(self, prepared: list[int]) -> int:
        return len(prepared)

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        longest = max(map(len, prepared))
        return {"ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids in prepared])}


class NumberPreprocess:
    def __init__(self, width: int) -> None:
        self.width = width

    def prepare(self, items: Sequence[object]) -> list[np.ndarray]:
        rows = [np.asarray(item, dtype=np.float32) for item in items]
        if any(row.shape != (self.width,) for row in rows):
            raise DataError(f"The model takes vectors of width {self.width}, and one has the shape {rows[0].shape}.")
        return rows

    def length(self, prepared: np.ndarray) -> int:
        return 1

    def collate(self, prepared: Sequence[np.ndarray]) -> Batch:
        return {"vectors": torch.from_numpy(np.stack(prepared))}


def _resize(image: Image) -> Image:
    return image.resize((SIZE + 4, SIZE + 4))


def _half(excess: int) -> int:
    return excess // 2


class Letters(FeatureExtractor):
    """Embeds letters; a second layer makes a stage of its own, and dropout something to keep still."""

    def __init__(self, network: nn.ModuleDict, *, pooled: bool) -> None:
        super().__init__()
        self.network, self.pooled = network, pooled
        out = network["letters_out"]
        assert isinstance(out, nn.Linear)
        self.dim = out.out_features

    def forward(self, batch: Batch) -> Features:
        ids = batch["ids"]
        embedded = self.network["letters_drop"](self.network["letters_in"](ids))
        tokens = embedded + torch.tanh(self.network["letters_out"](embedded))
        mask = ids > 0
        if self.pooled:
            return Features.of_vectors((tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
        return Features(tokens, mask)

    def stages(self) -> Sequence[Stage]:
        return [
            Stage("in", (self.network["letters_in"], self.network["letters_drop"])),
            Stage("out", (self.network["letters_out"],)),
        ]


class Pixels(FeatureExtractor):
    """Two convolutions, the first with batch statistics."""

    def __init__(self, network: nn.ModuleDict, *, pooled: bool) -> None:
        super().__init__()
        self.network, self.pooled = network, pooled
        out = network["pixels_out"]
        assert isinstance(out, nn.Conv2d)
        self.dim = out.out_channels

    def forward(self, batch: Batch) -> Features:
        hidden = torch.relu(self.network["pixels_norm"](self.network["pixels_in"](batch["pixels"])))
        tokens = self.network["pixels_out"](hidden).flatten(2).transpose(1, 2)
        if self.pooled:
            return Features.of_vectors(tokens.mean(1))
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def stages(self) -> Sequence[Stage]:
        return [
            Stage("in", (self.network["pixels_in"], self.network["pixels_norm"])),
            Stage("out", (self.network["pixels_out"],)),
        ]


class Numbers(FeatureExtractor):
    def __init__(self, network: nn.ModuleDict) -> None:
        super().__init__()
        self.network, self.dim = network, 6

    def forward(self, batch: Batch) -> Features:
        return Features.of_vectors(self.network["numbers"](batch["vectors"]))

    def stages(self) -> Sequence[Stage]:
        return [Stage("mix", (self.network["numbers"],))]


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    folder = Path(info.name)
    config_file = folder / "config.json"
    saved: dict[str, Any] = (
        json.loads(config_file.read_text()) if config_file.is_file() else {"acme": info.name, **options}
    )
    name = saved["acme"]
    # What is pretrained is always the same; what is not follows from the caller's seed.
    state = torch.random.get_rng_state()
    if pretrained:
        torch.manual_seed(7)
    network = nn.ModuleDict({"head": nn.Linear(4, 4)})
    if name in ("letters", "both"):
        width = 16 if name == "letters" else 8
        network["letters_in"] = nn.Embedding(LETTERS, width)
        network["letters_drop"] = nn.Dropout(float(saved.get("dropout") or 0))
        network["letters_out"] = nn.Linear(width, width)
    if name in ("pixels", "both"):
        network["pixels_in"] = nn.Conv2d(3, 6, 3, stride=2)
        network["pixels_norm"] = nn.BatchNorm2d(6)
        network["pixels_out"] = nn.Conv2d(6, 12 if name == "pixels" else 8, 3, stride=2)
    if name == "numbers":
        network["numbers"] = nn.Linear(saved["input_size"], 6)
    if pretrained:
        torch.random.set_rng_state(state)
    if config_file.is_file():
        del network["head"]
        network.load_state_dict(load_file(folder / "model.safetensors"))
    feeding: dict[Modality, Preprocess] = {}
    if "letters_in" in network:
        feeding["text"] = LetterPreprocess()
    if "pixels_in" in network:
        feeding["image"] = PixelPreprocess(
            resize=_resize,
            image_size=(SIZE, SIZE),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            offset=_half,
        )
    if "numbers" in network:
        feeding["vector"] = NumberPreprocess(saved["input_size"])

    def save(network: nn.Module, target: Path) -> None:
        (target / "config.json").write_text(json.dumps(saved))
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}, target / "model.safetensors"
        )

    return LoadedBackbone(network, feeding, save)


def strip(loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    network = loaded.network
    assert isinstance(network, nn.ModuleDict)
    if "head" in network:
        del network["head"]
    pooled = pooling == "native"
    made: dict[Modality, FeatureExtractor] = {}
    if "letters_in" in network:
        made["text"] = Letters(_part(network, "letters"), pooled=pooled)
    if "pixels_in" in network:
        made["image"] = Pixels(_part(network, "pixels"), pooled=pooled)
    if "numbers" in network:
        made["vector"] = Numbers(network)
    return made


def _part(network: nn.ModuleDict, prefix: str) -> nn.ModuleDict:
    return nn.ModuleDict({name: module for name, module in network.items() if name.startswith(prefix)})
