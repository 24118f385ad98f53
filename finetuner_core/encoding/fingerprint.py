"""What vectors follow from, so that a run that was stopped does not go on with those of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetuner_core.data.dataset import Column
from finetuner_core.data.slices import TarSlice
from finetuner_core.errors import DataError
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import Modality, Side, quote

_AT_ONCE = 8192

# What no two tokenizers make the same of.
_TEXTS = (
    "",
    "The quick brown fox, 1,234.5 times",
    "Übergröße – 模型を学ぶ 🙂",
    "longer than most that are read " * 100,
)


def of_model(model: EmbeddingModel, modality: Modality, side: Side | None) -> str:
    """SHA-256 over the weights of a model and over what it makes of an example: its tokens, or its pixels.

    Args:
        model: the model.
        modality: what it is to encode.
        side: what for.
    """
    digest = hashlib.sha256(model.pooling.encode())
    for name, tensor in sorted(model.state_dict().items()):
        _add(digest, name, tensor)
    preprocess = model.preprocess(modality, side)
    digest.update(str(getattr(preprocess, "max_length", None)).encode())
    for example in _examples(modality):
        for name, tensor in sorted(preprocess.collate(preprocess.prepare([example])).items()):
            _add(digest, name, tensor)
    return digest.hexdigest()


def computed_by(model: EmbeddingModel) -> dict[str, str]:
    """What computes, of which each rounds in its own way."""
    return {"device": model.device.type, "torch": str(torch.__version__)}


def of_items(column: Column) -> str:
    """SHA-256 over a column's items: texts, the numbers of vectors; of images in files name, size and age, in
    tars their place as well.

    Raises:
        DataError: if what is to be a text is none.
    """
    digest = hashlib.sha256(f"{len(column)}".encode())
    for start in range(0, len(column), _AT_ONCE):
        items = column.take(range(start, min(start + _AT_ONCE, len(column))))
        if isinstance(items, np.ndarray):
            digest.update(np.ascontiguousarray(items).data)
        elif column.modality == "text":
            for number, item in enumerate(items, start):
                if not isinstance(item, str):
                    raise DataError(f"Item {number} is a {type(item).__name__}, not a text: {quote(item)}.")
            digest.update(json.dumps(items).encode())
        else:
            for item in items:
                digest.update(_bytes(item))
    return digest.hexdigest()


def differences(before: Mapping[str, tuple[str, str]], now: Mapping[str, tuple[str, str]]) -> list[str]:
    """What of two runs is not the same, in words; of each thing there is how it is said, and what has to be equal.

    >>> differences({"model": ("a", "1"), "width": ("8", "8")}, {"model": ("a", "2"), "width": ("4", "4")})
    ['model a (now with other content)', 'width 8 (now 4)']
    """
    changed = []
    for name, (said, content) in now.items():
        old, old_content = before.get(name, ("none", ""))
        if old_content != content:
            changed.append(f"{name} {old} (now {said if said != old else 'with other content'})")
    return changed


def _examples(modality: Modality) -> Iterable[object]:
    if modality == "text":
        return _TEXTS
    if modality == "image":
        from PIL import Image

        return [Image.linear_gradient("L").convert("RGB").resize((300, 200))]
    return ()


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _bytes(item: object) -> bytes:
    if isinstance(item, str | Path):
        try:
            status = Path(item).stat()
        except OSError:  # which is said in better words where it is opened
            return str(item).encode(errors="surrogatepass")
        return f"{item} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogatepass")
    if isinstance(item, TarSlice):
        return f"{item} {item.offset} {item.size} ".encode(errors="surrogatepass") + _bytes(item.path)
    if isinstance(item, bytes):
        return item
    array = np.asarray(item)
    return f"{array.shape} {array.dtype}".encode() + array.tobytes()
