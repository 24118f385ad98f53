"""A Hub cache of the tests' own, small architectures that open_clip is told of, and pictures."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# huggingface_hub reads these when it is imported, so they are set before. The tests of other plugins, where they run in
# the same process, share the folder.
_MARK = "FINETUNER_TESTS_HF_HOME"
if _MARK not in os.environ:
    assert "huggingface_hub" not in sys.modules, "huggingface_hub was imported too early, and knows the person's cache"
    _home = tempfile.mkdtemp(prefix="finetuner-tests-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN"):
        os.environ.pop(_name, None)
    os.environ.update({_MARK: _home, "HF_HOME": _home, "TORCH_HOME": _home, "HF_HUB_OFFLINE": "1"})

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ["a", "cat", "dog", "sits", "on", "the", "mat", "and", "photo", "of", "two", "dogs", "in", "red", "shoes"]

VISION = {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def architectures(folder: Path) -> dict[str, dict[str, Any]]:
    """One for each form of tower that open_clip has; `folder` has a tokenizer and the description of a text tower."""
    words = {"vocab_size": len(WORDS) + 5, "hf_tokenizer_name": str(folder)}
    captions = {"context_length": 11, "embed_cls": True, "output_tokens": True}
    return {
        "tiny_vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
        "tiny_resnet": {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 64, "layers": [2, 2, 2, 2], "width": 8},
            "text_cfg": TEXT,
            "quick_gelu": True,
        },
        "tiny_timm": {
            "embed_dim": 24,
            "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp", "image_size": 64},
            "text_cfg": TEXT,
        },
        "tiny_siglip": {
            "embed_dim": 64,
            "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
            "text_cfg": TEXT
            | words
            | {
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
            },
            "custom_text": True,
            "init_logit_bias": -10,
        },
        "tiny_coca": {
            "embed_dim": 32,
            "vision_cfg": VISION
            | {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5, "output_tokens": True},
            "text_cfg": TEXT | captions,
            "multimodal_cfg": {"context_length": 11, "width": 32, "heads": 2, "layers": 1, "vocab_size": 49408},
            "custom_text": True,
        },
        "tiny_roberta": {
            "embed_dim": 24,
            "vision_cfg": VISION,
            "text_cfg": {
                "hf_model_name": str(folder),
                "hf_tokenizer_name": str(folder),
                "hf_pooler_type": "mean_pooler",
                "context_length": 12,
            },
        },
    }


NAMES = tuple(architectures(Path()))


@pytest.fixture(scope="session", autouse=True)
def _known_to_open_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig

    from finetuner_openclip.library import open_clip

    folder = tmp_path_factory.mktemp("transformers")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=20,
    ).save_pretrained(folder)
    models_folder = tmp_path_factory.mktemp("model_configs")
    for name, config in architectures(folder).items():
        (models_folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(models_folder)


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
    """Makes room for a repository in the Hub cache, as a download would, and takes it away after the test."""
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


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Smooth and noisy pictures whose sides are odd and even, wide and tall, large and smaller than any network's."""
    random = np.random.default_rng(0)
    made = []
    for width, height in ((301, 200), (200, 301), (257, 257), (33, 61), (225, 226), (50, 400)):
        y, x = np.mgrid[:height, :width] / 40
        waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 90 + 128
        noise = random.normal(scale=25, size=(height, width, 3))
        made.append(Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)))
    return made
