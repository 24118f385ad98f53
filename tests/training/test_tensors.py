"""What is written is what safetensors' own reader reads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from finetuner_core.training.tensors import sha256_of, size_of, write_tensors


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8)
    tensors = {f"of {kind}": torch.arange(5).to(kind) for kind in kinds}
    tensors |= {"truth": torch.tensor([True, False]), "scalar": torch.tensor(3.0), "none": torch.empty(0, 4)}
    tensors["turned"] = torch.arange(6.0).view(2, 3).T
    checksum = write_tensors(tmp_path / "t.safetensors", tensors)
    read = load_file(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert checksum == sha256_of(tmp_path / "t.safetensors")
    assert size_of(tensors) < (tmp_path / "t.safetensors").stat().st_size
