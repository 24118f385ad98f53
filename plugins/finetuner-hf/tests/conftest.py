"""A Hub cache of the tests' own, small models written as transformers writes them, and pictures."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedModel

# huggingface_hub reads these when it is imported, so they are set before. The tests of the timm plugin, where they run
# in the same process, share the folder.
_MARK = "FINETUNER_TESTS_HF_HOME"
if _MARK not in os.environ:
    assert "huggingface_hub" not in sys.modules, "huggingface_hub was imported too early, and knows the person's cache"
    _home = tempfile.mkdtemp(prefix="finetuner-tests-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN"):
        os.environ.pop(_name, None)
    os.environ.update({_MARK: _home, "HF_HOME": _home, "TORCH_HOME": _home, "HF_HUB_OFFLINE": "1"})

COMMIT = "0123456789abcdef0123456789abcdef01234567"

TEXTS = (
    "a cat sits on the mat",
    "a kitten is sitting",
    "dog",
    "the quick brown fox jumps over the lazy dog and the dog sits on the mat with a cat",
    "",
)

SaveModel = Callable[..., "PreTrainedModel"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these lose more by waiting for each other's threads than they gain."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def put_into_cache() -> Iterator[Callable[[str], Path]]:
    """Makes room for a repository in the Hub cache, as a download would, and takes it away after the test.

    `put_into_cache("bert-base-cased")` gives the folder into which its files are to be written.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    assert Path(HF_HUB_CACHE).is_relative_to(os.environ[_MARK])
    made: list[Path] = []

    def make(repository: str) -> Path:
        folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
        made.append(folder)
        return snapshot

    yield make
    for folder in made:
        shutil.rmtree(folder)


def wordpiece(
    size: int,
    special: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    template: str = "[CLS] $A [SEP]",
) -> Tokenizer:
    """A tokenizer of that many pieces: special ones, letters, the words of `TEXTS`, and words that fill it up.

    The template says which special tokens it puts around a text: T5's only ends it, and some decoders' have none.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = sorted({word for text in TEXTS for word in text.split() if len(word) > 1})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    pieces += [f"word{number}" for number in range(size - len(pieces))]
    vocabulary = {piece: number for number, piece in enumerate(pieces[:size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    return tokenizer


@pytest.fixture(scope="session")
def save_tokenizer() -> Callable[..., None]:
    """Writes a tokenizer: `save_tokenizer(folder, size)`, with what else its configuration is to say."""

    def save(folder: Path, size: int = 128, pad: int = 0, template: str = "[CLS] $A [SEP]", **settings: object) -> None:
        from transformers import PreTrainedTokenizerFast

        special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        special.insert(pad, "[PAD]")
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        tokenizer = wordpiece(size, special, template)
        made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **settings)  # type: ignore[no-untyped-call]
        made.save_pretrained(folder)

    return save


@pytest.fixture(scope="session")
def save_text_model(save_tokenizer: Callable[..., None]) -> SaveModel:
    """Writes a small text model with its tokenizer: `save_text_model(folder, config)`, and gives the network."""

    def save(folder: Path, config: PreTrainedConfig, kind: type | None = None, **settings: object) -> PreTrainedModel:
        import torch
        from transformers import AutoModel

        torch.manual_seed(0)
        made = kind(config) if kind else AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        network: PreTrainedModel = made.eval()
        with torch.no_grad():
            for parameter in network.parameters():
                # As transformers initialises them, tokens hardly differ, and biases not at all.
                parameter.add_(torch.randn_like(parameter) * 0.1)
        network.save_pretrained(folder)
        save_tokenizer(folder, config.vocab_size, config.pad_token_id or 0, **settings)
        return network

    return save


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Smooth and noisy pictures whose sides are odd and even, wide and tall, large and small."""
    random = np.random.default_rng(0)
    made = []
    for width, height in ((301, 200), (200, 301), (257, 257), (640, 427), (33, 61), (224, 224), (225, 226), (50, 400)):
        y, x = np.mgrid[:height, :width] / 40
        waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 90 + 128
        noise = random.normal(scale=25, size=(height, width, 3))
        made.append(Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)))
    return made
