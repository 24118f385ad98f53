"""What vectors follow from, so that a run that was stopped does not go on with those of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finetuner_core.data.dataset import Column
from finetuner_core.mining.task import Task
from finetuner_core.modeling.embedding_model import EmbeddingModel

_AT_ONCE = 4096


def made_from(model: EmbeddingModel, task: Task, batch_size: int | None) -> dict[str, object]:
    """All that the vectors, and what is found with them, follow from, by name."""
    columns = [task.documents] if task.is_labelled else [task.documents, task.queries]
    return {
        "model": [of_weights(model), *sorted(_feeding(model))],
        "data": [*map(_of_column, columns), task.known.fingerprint()],
        "batch_size": batch_size,
    }


def of_weights(network: nn.Module) -> str:
    """SHA-256 over the weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _feeding(model: EmbeddingModel) -> Iterable[str]:
    """How each tower is fed: lengths, prompts and whatever else its preprocess has set."""
    for side, tower in model.sided_towers():
        yield f"{side}: {tower.info.full_name}, {tower.pooling}"
        for modality in tower.info.modalities:
            for asked in (None, "query", "document"):
                settings = vars(tower.preprocess(modality, asked))
                plain = {
                    name: value for name, value in settings.items() if isinstance(value, str | int | float | tuple)
                }
                yield f"{side}, {modality}, {asked}: {sorted(plain.items())}"


def _of_column(column: Column) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(column), _AT_ONCE):
        items = column.take(range(start, min(start + _AT_ONCE, len(column))))
        if column.modality == "text":
            digest.update(json.dumps(items).encode())
        else:
            for item in items:
                digest.update(_bytes(item))
    return digest.hexdigest()


def _bytes(item: object) -> bytes:
    """A vector by its numbers, an image by its path and its age or, in memory, by its pixels."""
    if isinstance(item, str | Path):
        status = Path(item).stat()
        return f"{item} {status.st_size} {status.st_mtime_ns}".encode()
    array = np.asarray(item)
    return f"{array.shape} {array.dtype}".encode() + array.tobytes()
