"""The heavy half of the toy plugin: a network over letters with all that can be got wrong."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Preprocess, Stage
from finetuner_core.plugin import BackboneInfo, Modality
from toy import fault
from toy.plugin import WIDTH

LETTERS, LONGEST = 128, 200


class LetterPreprocess:
    max_length = LONGEST

    def __init__(self) -> None:
        self.lock = (lambda: None) if fault("preprocess that cannot be pickled") else None
        self.marked = fault("preprocess that loses something")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "marked": False}

    def prepare(self, items: Sequence[object]) -> list[list[int]]:
        texts = [str(item) for item in items]
        if fault("empty text refused") and "" in texts:
            raise IndexError("list index out of range")
        if fault("items prepared together"):
            texts = [text.ljust(max(map(len, texts))) for text in texts]
        first = [127] if self.marked else []
        # The end is marked, so that an empty text has a token.
        ids = [first + [2 + ord(letter) % (LETTERS - 3) for letter in text] + [1] for text in texts]
        return ids if fault("long text not cut") else [one[: LONGEST - 1] + one[-1:] for one in ids]

    def length(self, prepared: list[int]) -> int:
        return 0 if fault("length of zero") else len(prepared)

    def is_cut(self, prepared: list[int]) -> bool:
        return len(prepared) >= LONGEST and not fault("long text cut in silence")

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        if fault("batch sorted by length"):
            prepared = sorted(prepared, key=len)
        longest = max(map(len, prepared))
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in prepared])
        return {"ids": ids.T if fault("batch not the first dimension") else ids}


class NormThatCounts(nn.BatchNorm1d):
    """A batch norm that stays in training mode, whatever it is told."""

    def train(self, mode: bool = True) -> NormThatCounts:
        return super().train(True)


class Words(FeatureExtractor):
    """Letters, embedded and mixed with the mean of their text, with a batch norm within and a layer norm at the end."""

    def __init__(self, network: nn.ModuleDict, *, pooled: bool) -> None:
        super().__init__()
        self.network, self.pooled = network, pooled
        self.dim = WIDTH
        if fault("width misreported by extractor") or fault("width misreported everywhere"):
            self.dim = WIDTH + 1

    def forward(self, batch: Batch) -> Features:
        layers = cast("dict[str, nn.Module]", self.network)
        ids = batch["ids"].T if fault("batch not the first dimension") else batch["ids"]
        mask = torch.ones_like(ids, dtype=torch.bool) if fault("mask ignored") else ids > 0
        hidden: Tensor = layers["embed"](ids)
        hidden = layers["drop"](hidden)
        if fault("dropout left on"):
            hidden = F.dropout(hidden, 0.5)
        hidden = hidden + torch.tanh(layers["mix"](_mean(hidden, mask))).unsqueeze(1)
        if fault("a batch's own statistics"):
            hidden = hidden - hidden.mean((0, 1))
        norm = cast("nn.BatchNorm1d", layers["norm"])
        if fault("batch norm called as in training"):
            statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
            hidden = F.batch_norm(hidden.transpose(1, 2), *statistics, training=True).transpose(1, 2)
        else:
            hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
        if fault("overflow in bfloat16"):
            hidden = hidden / ((1 + layers["mix"](hidden).abs() * 0 + 1e-3) - 1)
        if fault("root of zero in bfloat16") and (mixed := layers["mix"](hidden)).dtype == torch.bfloat16:
            hidden = hidden + (mixed * 0).sqrt()
        if fault("items not looked at"):
            hidden = hidden * 0 + sum(parameter.sum() for parameter in self.parameters())
            hidden = hidden + torch.arange(WIDTH)
        if not fault("pooled before the last norm"):
            hidden = layers["last"](hidden)
        if fault("logits given"):
            hidden = layers["head"](hidden)
        if self.pooled and not fault("native not pooled"):
            return Features.of_vectors(_mean(hidden, mask))
        return Features(hidden, mask.float() if fault("mask of floats") else mask)

    def stages(self) -> Sequence[Stage]:
        names = [["embed", "drop"], ["mix", "norm"], ["last", *(["head"] if "head" in self.network else [])]]
        if fault("a layer in no stage"):
            names[1].remove("norm")
        if fault("a layer in two stages"):
            names[2].append("mix")
        return [Stage(part[0], tuple(self.network[name] for name in part)) for part in names]


def load(info: BackboneInfo, pretrained: bool) -> LoadedBackbone:
    if fault("pretrained=False fetches"):
        with contextlib.suppress(OSError):
            socket.create_connection(("weights.invalid", 443), timeout=1)
    norm = NormThatCounts if fault("batch norm left in training mode") else nn.BatchNorm1d
    network = nn.ModuleDict(
        {
            "embed": nn.Embedding(LETTERS, WIDTH),
            "drop": nn.Dropout(0.5),
            "mix": nn.Linear(WIDTH, WIDTH),
            "norm": norm(WIDTH),
            "last": nn.LayerNorm(WIDTH),
            "head": nn.Linear(WIDTH, 5),
        }
    )
    folder = Path(info.name)
    if (folder / "config.json").is_file():
        network.load_state_dict(load_file(folder / "model.safetensors"), strict=False)

    def save(network: nn.Module, target: Path) -> None:
        (target / "config.json").write_text(json.dumps({"toy": info.name}))
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if fault("save forgets batch statistics"):
            state = {name: tensor for name, tensor in state.items() if "running" not in name}
        save_file(state, target / "model.safetensors")

    preprocess: dict[Modality, Preprocess] = {} if fault("no preprocess") else {"text": LetterPreprocess()}
    return LoadedBackbone(network, preprocess, save)


def strip(loaded: LoadedBackbone, pooling: str) -> Mapping[Modality, FeatureExtractor]:
    network = loaded.network
    assert isinstance(network, nn.ModuleDict)
    if fault("head left on") or fault("logits given"):
        return {"text": Words(network, pooled=pooling == "native")}
    kept = nn.ModuleDict({name: module for name, module in network.items() if name != "head"})
    if not fault("head left in the network"):
        del network["head"]
    return {"text": Words(kept, pooled=pooling == "native")}


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
