"""A Hub cache of the tests' own, and pictures."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# huggingface_hub reads these when it is imported, so they are set before. The tests of the hf plugin, where they run in
# the same process, share the folder.
_MARK = "FINETUNER_TESTS_HF_HOME"
if _MARK not in os.environ:
    assert "huggingface_hub" not in sys.modules, "huggingface_hub was imported too early, and knows the person's cache"
    _home = tempfile.mkdtemp(prefix="finetuner-tests-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN"):
        os.environ.pop(_name, None)
    os.environ.update({_MARK: _home, "HF_HOME": _home, "TORCH_HOME": _home, "HF_HUB_OFFLINE": "1"})

# The checks that the tests share with the sweep lie beside them.
sys.path.insert(0, str(Path(__file__).parent))

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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

    `put_into_cache("timm/resnet18.a1_in1k")` gives the folder into which its files are to be written.
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


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Smooth and noisy pictures whose sides are odd and even, wide and tall, large and smaller than any network's."""
    random = np.random.default_rng(0)
    made = []
    for width, height in ((301, 200), (200, 301), (257, 257), (640, 427), (33, 61), (224, 224), (225, 226), (50, 400)):
        y, x = np.mgrid[:height, :width] / 40
        waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 90 + 128
        noise = random.normal(scale=25, size=(height, width, 3))
        made.append(Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)))
    return made
