"""Lists one plugin in a process of its own, and tells what that brought: `python -m finetuner_core.testing.listing`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points

from finetuner_core.catalogue.discovery import GROUP_PREFIX, Plugin, discover
from finetuner_core.testing.check import fail
from finetuner_core.testing.network import watched_network

# fmt: off
HEAVY = frozenset({
    "PIL", "accelerate", "cv2", "datasets", "huggingface_hub", "jax", "keras", "matplotlib", "numpy", "onnxruntime",
    "open_clip", "pandas", "peft", "pytorch_metric_learning", "safetensors", "scipy", "sentence_transformers",
    "skimage", "sklearn", "tensorflow", "timm", "tokenizers", "torch", "torchvision", "tqdm", "transformers",
})
# fmt: on
"""Packages that no light plugin imports, and beside these any of a hundred modules or more."""

_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Listing:
    """What was seen while a plugin was imported and listed.

    Args:
        problem: why it did not load; empty where it did.
        rows: what it lists, each row as a text.
        heavy: the heavy packages that it imported.
        attempts: what it asked the network for.
    """

    problem: str
    rows: list[str]
    heavy: list[str]
    attempts: list[str]


def list_afresh(namespace: str) -> Listing:
    """Imports and lists a plugin, and no other, in a new process that finds the packages that this one finds."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Another seed for hashes than this process has, so that rows in the order of a set show.
    environment.pop("PYTHONHASHSEED", None)
    command = [sys.executable, "-m", "finetuner_core.testing.listing", namespace]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        fail(
            f'Importing and listing the plugin "{namespace}" took longer than {_TIMEOUT_SECONDS} s.',
            "Give literals from list_* hooks, and leave all work to the hooks that build.",
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        fail(
            f'The process that listed the plugin "{namespace}" ended with code {done.returncode}: '
            f"{lines[-1] if lines else 'it said nothing'}.",
            f'Run it to see why: python -m finetuner_core.testing.listing "{namespace}"',
        )
    return Listing(**json.loads(done.stdout.splitlines()[-1]))


def rows_of(plugin: Plugin) -> list[str]:
    """All that a plugin lists, as texts that can be compared."""
    return [repr(row) for row in (*plugin.backbones, *plugin.poolings, *plugin.losses)]


def _list(namespace: str) -> Listing:
    groups = entry_points()
    others = {
        entry.name for group in groups.groups if group.startswith(GROUP_PREFIX) for entry in groups.select(group=group)
    }
    os.environ["FINETUNER_DISABLE_PLUGINS"] = ",".join(sorted(others - {namespace}))
    os.environ.pop("FINETUNER_STRICT", None)
    before = set(sys.modules)
    with watched_network() as attempts:
        plugin = next(iter(plugin for plugin in discover() if plugin.namespace == namespace), None)
    if plugin is None:
        return Listing(f'no plugin has the namespace "{namespace}"', [], [], attempts)
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    return Listing(plugin.problem, rows_of(plugin), sorted(HEAVY & imported | set(plugin.heavy_imports)), attempts)


if __name__ == "__main__":
    print(json.dumps(asdict(_list(sys.argv[1]))))
