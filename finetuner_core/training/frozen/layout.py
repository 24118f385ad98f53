"""How what a network gives of a batch is taken apart into its items, and put together again for other batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

Axis: TypeAlias = int | Literal["B", "T", "N"]
"""A size that is always the same, or that of the batch: its items, the tokens that it is padded to, its real tokens."""


class NotCachedError(Exception):
    """A frozen part is not cached; the message says why, to be read behind a colon."""


@dataclass(frozen=True)
class Sizes:
    """Of a batch.

    Args:
        items: how many there are, B.
        width: the tokens T that each is padded to; `None` where items have no tokens.
        tokens: the real tokens N of all items; `None` as above.
    """

    items: int
    width: int | None = None
    tokens: int | None = None

    def of(self, axis: Axis) -> int:
        """The size of an axis."""
        if isinstance(axis, int):
            return axis
        size = {"B": self.items, "T": self.width, "N": self.tokens}[axis]
        assert size is not None
        return size

    def shape(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        """The sizes of some axes."""
        return tuple(map(self.of, axes))

    @property
    def distinct(self) -> bool:
        """Whether a size tells of what it is one."""
        known = [size for size in (self.items, self.width, self.tokens) if size is not None]
        return len(set(known)) == len(known)


def axes_of(first: Tensor, second: Tensor, sizes: tuple[Sizes, Sizes]) -> tuple[Axis, ...] | None:
    """What the axes of a tensor are, seen in two batches of different sizes; `None` where they follow no rule."""
    if first.ndim != second.ndim:
        return None
    found: list[Axis] = []
    names: tuple[Literal["B", "T", "N"], ...] = ("B",) if sizes[0].width is None else ("B", "T", "N")
    for seen in zip(first.shape, second.shape, strict=True):
        # Texts that are all padded to one width leave that width a number like any other.
        fitting = [name for name in names if seen == (sizes[0].of(name), sizes[1].of(name))]
        changing = seen[0] != seen[1]
        if changing and not fitting:
            return None
        found.append(fitting[0] if changing else seen[0])
    return tuple(found)


@dataclass(frozen=True)
class Part:
    """One tensor of those that are kept of each item.

    Its axes begin with `B`, and an item has its slice of it; with `B, T`, and an item has its real tokens; or with `N`
    or `1, N`, where the real tokens of all items stand one after the other, those of the longest item first.

    Args:
        axes: of the tensor.
        dtype: of its numbers, which are kept bit by bit.
        channels_last: whether a map (B, C, H, W) lies in memory with a pixel's channels side by side.
    """

    axes: tuple[Axis, ...]
    dtype: torch.dtype
    channels_last: bool = False

    @property
    def is_possible(self) -> bool:
        """Whether a tensor of such axes can be taken apart."""
        inner = self.axes[self._before :]
        return self._before > 0 and all(isinstance(axis, int) for axis in inner)

    @property
    def has_tokens(self) -> bool:
        """Whether an item has as much of it as it has tokens."""
        return "T" in self.axes or "N" in self.axes

    @property
    def _before(self) -> int:
        starts: tuple[tuple[Axis, ...], ...] = (("B", "T"), ("B",), ("N",), (1, "N"))
        return next((len(start) for start in starts if self.axes[: len(start)] == start), 0)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an item, or of one token of it, as it lies in the file."""
        inner = tuple(axis for axis in self.axes[self._before :] if isinstance(axis, int))
        return (*inner[1:], inner[0]) if self.channels_last else inner

    @cached_property
    def bytes(self) -> int:
        """Of an item, or of one token of it."""
        return prod(self.shape) * self.dtype.itemsize

    def split(self, tensor: Tensor, mask: Tensor) -> list[np.ndarray]:
        """The bytes of each item.

        Args:
            tensor: of the axes.
            mask: bool (B, T), true where a token is real.

        Raises:
            NotCachedError: if it is of another shape or type than those that were seen before.
        """
        lengths = mask.sum(1).tolist()
        shape = Sizes(len(mask), mask.shape[1], sum(lengths)).shape(self.axes)
        if tensor.shape != shape or tensor.dtype != self.dtype:
            raise NotCachedError(
                f"some items give {tuple(tensor.shape)} {tensor.dtype}, where others give {shape} {self.dtype}"
            )
        tensor = tensor.cpu()
        if "N" in self.axes:
            order = _longest_first(lengths)
            tokens = torch.split(tensor.reshape(-1, *self.shape), [lengths[number] for number in order])
            pieces = dict(zip(order, tokens, strict=True))
            return [_bytes(pieces[number]) for number in range(len(lengths))]
        if "T" in self.axes:
            return [_bytes(item[real]) for item, real in zip(tensor, mask, strict=True)]
        tensor = tensor.permute(0, 2, 3, 1) if self.channels_last else tensor
        return [_bytes(item) for item in tensor]

    def join(self, items: Sequence[np.ndarray], mask: Tensor) -> Tensor:
        """The tensor of some items, whose bytes are given; `mask` as above, with padding where it is to be."""
        if not self.has_tokens:
            joined = torch.from_numpy(np.stack(items)).view(self.dtype).view(len(items), *self.shape)
            return joined.permute(0, 3, 1, 2) if self.channels_last else joined
        if "N" in self.axes:
            order = _longest_first([len(item) for item in items])
            items = [items[number] for number in order]
        tokens = torch.from_numpy(np.concatenate(items)).view(self.dtype).view(-1, *self.shape)
        if "N" in self.axes:
            return tokens if self.axes[0] == "N" else tokens.unsqueeze(0)
        padded = tokens.new_zeros(*mask.shape, *self.shape)
        padded[mask] = tokens
        return padded


@dataclass(frozen=True)
class Layout:
    """How the record of an item is made of its parts, one after the other.

    Args:
        parts: its tensors.
        left: whether padding stands before the tokens, and not after them.
    """

    parts: tuple[Part, ...]
    left: bool = False

    @cached_property
    def fixed(self) -> int:
        """Bytes of every record."""
        return sum(part.bytes for part in self.parts if not part.has_tokens)

    @cached_property
    def per_token(self) -> int:
        """Bytes of each token beside them."""
        return sum(part.bytes for part in self.parts if part.has_tokens)

    def tokens(self, record: np.ndarray) -> int:
        """How many tokens an item has, 1 where it is none of tokens."""
        return (len(record) - self.fixed) // self.per_token if self.per_token else 1

    def mask(self, lengths: Sequence[int], width: int | None = None) -> Tensor:
        """Bool (B, T), true where a token is real; T is the longest length where no width is given."""
        positions = torch.arange(max(lengths, default=0) if width is None else width)
        counts = torch.tensor(lengths).unsqueeze(1)
        return positions >= len(positions) - counts if self.left else positions < counts

    def records(self, tensors: Sequence[Tensor], mask: Tensor) -> list[np.ndarray]:
        """A record of each item, uint8."""
        split = [part.split(tensor, mask) for part, tensor in zip(self.parts, tensors, strict=True)]
        return [np.concatenate(pieces) for pieces in zip(*split, strict=True)]

    def tensors(self, records: Sequence[np.ndarray]) -> tuple[list[Tensor], Tensor]:
        """The tensors of a batch of items, and their mask."""
        lengths = [self.tokens(record) for record in records]
        mask = self.mask(lengths)
        starts, tensors = [0] * len(records), []
        for part in self.parts:
            ends = [
                start + part.bytes * (length if part.has_tokens else 1)
                for start, length in zip(starts, lengths, strict=True)
            ]
            pieces = [record[start:end] for record, start, end in zip(records, starts, ends, strict=True)]
            tensors.append(part.join(pieces, mask))
            starts = ends
        return tensors, mask


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
