"""How much of a batch may keep its graph at once, so that training never runs out of memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetuner_core.modeling.embed import Limit, tokens_at_once, tokens_of
from finetuner_core.training.gradients import Work
from finetuner_core.training.randomness import as_if_never

# Of what is free, how much graphs may take: beside them stand gradients of activations, and what others need meanwhile.
_SHARE = 0.5

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, `None` where nobody tells.

    On a CPU what the machine has free, or the container where that may have less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [bytes_ for bytes_ in (_of_machine(), _of_container()) if bytes_ is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_container() -> int | None:
    try:
        limit, used = (_CGROUP / name for name in ("memory.max", "memory.current"))
        # What it holds of files can be had back.
        held = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit.read_text()) - int(used.read_text()) + int(held.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class GraphBudget:
    """Decides for each step whether its graph fits into memory, and how large chunks may be where it does not.

    How many bytes a token's graph takes is measured on the longest item that was seen, whose attention takes most: all
    that autograd keeps for the backward pass. Nothing is guessed from the network's sizes.

    Args:
        trained: parameters; room is left for their gradients and for what the optimizer keeps.
        device: where.
        items: the most items that keep their graph at once, `None` for as many as fit.
    """

    def __init__(self, trained: Iterable[nn.Parameter], device: torch.device, items: int | None = None) -> None:
        self.device, self.items = device, items
        reserved = sum(3 * parameter.numel() * parameter.element_size() for parameter in trained)
        free = free_memory(device)
        # A power of two, so that two runs on a machine compute in the same chunks, whatever else it is doing.
        self.bytes = None if free is None else _power_of_two(_SHARE * (free - reserved))
        self._tried = math.inf  # bytes of the last step's graph, or of one of its chunks
        self._longest: dict[nn.Module, int] = {}
        self._per_token: dict[nn.Module, float] = {}

    def limit(self, works: Sequence[Work], dtype: torch.dtype) -> Limit | None:
        """How large the chunks of a step have to be; `None` where all of it fits.

        Args:
            works: the step, in chunks of any size.
            dtype: what the forward pass computes in.
        """
        too_many = self.items is not None and sum(len(work.prepared) for work in works) > self.items
        tokens = tokens_at_once(self.device)
        if self.bytes is not None:
            total = sum(work.tokens() * self._measured(work, dtype) for work in works)
            too_many = too_many or total > self.bytes
            # At least a byte: what is frozen as a whole keeps nothing.
            per_token = max(1.0, *(self._per_token[work.encoder] for work in works))
            tokens = min(tokens, max(1, int(self.bytes / per_token)))
            self._tried = tokens * per_token if too_many else total
        # Chunks are computed twice, whatever their size: none is larger than pays.
        return Limit(tokens, self.items) if too_many else None

    def is_larger(self, work: Work) -> bool:
        """Whether the graph of a work's longest item alone is more than there is room for."""
        return self.bytes is not None and self._longest[work.encoder] * self._per_token[work.encoder] > self.bytes

    def halve(self) -> None:
        """To be called when memory ran out after all: half of what was tried is what may be tried next."""
        most = free_memory(self.device) or 2**30 if self.bytes is None else self.bytes
        self.bytes = int(min(most, self._tried)) // 2

    def numbers(self, encoders: Sequence[nn.Module]) -> dict[str, Any]:
        """What was decided and measured so far, for each of some encoders in their order."""
        return {
            "bytes": self.bytes,
            "longest": [self._longest.get(encoder) for encoder in encoders],
            "per_token": [self._per_token.get(encoder) for encoder in encoders],
        }

    def restore(self, numbers: Mapping[str, Any], encoders: Sequence[nn.Module]) -> None:
        """Decides as it did then."""
        self.bytes = numbers["bytes"]
        for kept, name in ((self._longest, "longest"), (self._per_token, "per_token")):
            kept.update({own: value for own, value in zip(encoders, numbers[name], strict=True) if value is not None})

    def _measured(self, work: Work, dtype: torch.dtype) -> float:
        position = work.chunks[0][0]
        tokens = tokens_of(work.preprocess, [work.prepared[position]])[0]
        if tokens > self._longest.get(work.encoder, 0):
            self._per_token[work.encoder] = _graph_bytes(work, position, self.device, dtype) / tokens
            self._longest[work.encoder] = tokens
        return self._per_token[work.encoder]


def _power_of_two(number: float) -> int:
    """The largest that is no more than a number; 0 where that is less than 1."""
    return 2 ** (int(number).bit_length() - 1) if number >= 1 else 0


def _graph_bytes(work: Work, position: int, device: torch.device, dtype: torch.dtype) -> int:
    """What autograd keeps of one item: every tensor once, without the parameters themselves."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in work.encoder.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        as_if_never(device),
        _fixed_statistics(work.encoder),
        torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor),
    ):
        embedded = work.embed([position], device, dtype)  # held until all is counted
        del embedded
    return sum(kept.values())


@contextmanager
def _fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Within it batch norms do not learn: one item has no statistics."""
    learning = list(_learning(module))
    for norm in learning:
        norm.eval()
    try:
        yield
    finally:
        for norm in learning:
            norm.train()


def learns_statistics(module: nn.Module) -> bool:
    """Whether a batch norm in a module computes with the statistics of its batch, and learns them."""
    return any(True for _ in _learning(module))


def _learning(module: nn.Module) -> Iterator[nn.Module]:
    return (each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training)
