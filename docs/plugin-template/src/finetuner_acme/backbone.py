"""The network, how it is fed, and how it is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from finetuner_acme.plugin import FORMAT, ROW, read_config
from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Stage
from finetuner_core.plugin import BackboneInfo, OptionValue, WeightsError

# Longer words fall into pieces. A word of 20 letters has 40 n-grams: itself, 20 of three letters, 19 of four.
WORD = re.compile(r"[^\W_]{1,20}")
NGRAMS = 40


class NgramPreprocess:
    """Texts as words, and words as the numbers of their character n-grams.

    Args:
        buckets: how many different numbers there are, from 1.
    """

    max_length = 32

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    def prepare(self, items: Sequence[object]) -> list[list[list[int]]]:
        """The words of each text, `NGRAMS` numbers each, padded with 0."""
        # One word more than is read tells a text that is cut; a text without words is one empty word.
        texts = [WORD.findall(str(item).lower())[: self.max_length + 1] or [""] for item in items]
        return [[self._numbers(word) for word in words] for words in texts]

    def length(self, prepared: list[list[int]]) -> int:
        """How many words are read."""
        return min(len(prepared), self.max_length)

    def is_cut(self, prepared: list[list[int]]) -> bool:
        """Whether the text has more words than are read."""
        return len(prepared) > self.max_length

    def collate(self, prepared: Sequence[list[list[int]]]) -> Batch:
        """`ngrams`, int64 (B, T, NGRAMS)."""
        return {"ngrams": pad_sequence([torch.tensor(p[: self.max_length]) for p in prepared], batch_first=True)}

    def _numbers(self, word: str) -> list[int]:
        marked = f"<{word}>"
        ngrams = [marked, *(marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1))]
        # Not hash(), which differs from process to process.
        numbers = [1 + crc32(ngram.encode()) % self.buckets for ngram in ngrams]
        return numbers + [0] * (NGRAMS - len(numbers))


class NgramNetwork(FeatureExtractor):
    """A word is the sum of its n-grams' vectors (Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606), and what a
    convolution adds for its neighbours.

    Args:
        buckets: how many vectors there are.
    """

    def __init__(self, buckets: int) -> None:
        super().__init__()
        assert ROW.output_dim is not None
        self.dim = ROW.output_dim
        self.words = nn.EmbeddingBag(1 + buckets, self.dim, mode="sum", padding_idx=0)
        self.context = nn.Conv1d(self.dim, self.dim, kernel_size=3, padding=1)
        with torch.no_grad():
            self.words.weight.normal_(std=0.1)[0] = 0

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D), one for each word."""
        ngrams = batch["ngrams"]
        # Padding has no n-gram, so its sum is 0, which is what the convolution sees beyond the ends of a text.
        words = self.words(ngrams.flatten(0, 1)).unflatten(0, ngrams.shape[:2])
        context = self.context(words.transpose(1, 2)).transpose(1, 2)
        return Features(words + nn.functional.gelu(context), ngrams[..., 0] > 0)

    def stages(self) -> Sequence[Stage]:
        """The words, then their context."""
        return [Stage("words", (self.words,)), Stage("context", (self.context,))]


def load(info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]) -> LoadedBackbone:
    """A new network, or the one that a folder holds, whose row has no options."""
    folder = Path(info.name)
    config = options or read_config(folder) or {}
    buckets = config["buckets"]
    assert isinstance(buckets, int)
    network = NgramNetwork(buckets)
    if pretrained and options:
        raise WeightsError(f"{info.name} has no pretrained weights.\nTrain it: --from-scratch, or pretrained=False.")
    if pretrained:
        try:
            load_model(network, folder / "model.safetensors")
        except (OSError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"The weights in {folder} cannot be loaded: {error}") from None

    def save(network: nn.Module, target: Path) -> None:
        (target / "config.json").write_text(json.dumps({"format": FORMAT, **config}, indent=2) + "\n", "utf-8")
        save_model(network, str(target / "model.safetensors"))

    return LoadedBackbone(network, {"text": NgramPreprocess(buckets)}, save)
