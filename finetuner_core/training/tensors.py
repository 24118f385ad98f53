"""Tensors into a safetensors file and out of it, with a checksum that is computed on the way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_AT_ONCE = 2**20


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """How many bytes a file of some tensors takes, but for a little."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes a file and waits until it is on the disk.

    Each tensor is written from where it is, one after the other: safetensors' own `save_file` makes a second copy of
    all of them in memory, and the file would have to be read again for its checksum.

    Args:
        file: a new one.
        tensors: by name, on any device.

    Returns:
        SHA-256 of the file.
    """
    # By size of an element, so that each lies where its type may be read from a memory map.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for part in (len(head).to_bytes(8, "little"), head):
            stream.write(part)
            digest.update(part)
        for name in order:
            content = tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            stream.write(content)
            digest.update(content)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def sha256_of(file: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while content := stream.read(_AT_ONCE):
            digest.update(content)
    return digest.hexdigest()
