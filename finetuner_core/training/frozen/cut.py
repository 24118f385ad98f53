"""A network that is cut behind its frozen stages, without a word from its plugin, and proven to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_core.training.frozen.calls import Call, ReachedError, recorded, replaced
from finetuner_core.training.frozen.layout import Axis, Layout, Sizes

MASK = "frozen.mask"
"""By this name a batch says which tokens of its items are real, bool (B, T)."""


@dataclass(frozen=True)
class Kept:
    """A tensor that is kept, as the part of this number."""

    number: int


@dataclass(frozen=True)
class Hollow:
    """A tensor that has no part in what is computed and has to be there all the same."""

    axes: tuple[Axis, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Same:
    """What is the same whatever the batch: a table of positions, a number."""

    value: object


Leaf: TypeAlias = Kept | Hollow | Same
"""What takes the place of a value that a network is fed, or that a frozen module gives."""


@dataclass(frozen=True)
class Output:
    """What takes the place of one call of a frozen module.

    Args:
        module: what is called.
        leaves: of what it gives.
        spec: how they are put together.
    """

    module: nn.Module
    leaves: tuple[Leaf, ...]
    spec: pytree.TreeSpec


class FromBoundary(FeatureExtractor):
    """The real extractor, whose frozen modules are not computed: they give what was kept of them.

    Args:
        extractor: the real one, which is trained through this one.
        inputs: what stands in the place of each tensor of its batch.
        outputs: and in that of each call of a frozen module, in the order of the calls; `None` where it is computed.
        empty: whether hollow tensors have no items at all, so that nothing is computed of them; else they are zeros.
    """

    def __init__(
        self, extractor: FeatureExtractor, inputs: Mapping[str, Leaf], outputs: Sequence[Output | None], *, empty: bool
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.dim, self.padding_free = extractor.dim, extractor.padding_free
        self._inputs, self._outputs, self._empty = inputs, outputs, empty

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D) of what was kept, by the names of `name_of`, and of the mask."""
        mask = batch[MASK]
        outputs = [output for output in self._outputs if output is not None]
        packed = any("N" in leaf.axes for own in outputs for leaf in own.leaves if isinstance(leaf, Hollow))
        sizes = Sizes(len(mask), mask.shape[1], int(mask.sum()) if packed else None)

        def real(leaf: Leaf) -> object:
            if isinstance(leaf, Kept):
                return batch[name_of(leaf.number)]
            if isinstance(leaf, Hollow):
                shape = (0 if self._empty and axis == "B" else sizes.of(axis) for axis in leaf.axes)
                return torch.zeros(*shape, dtype=leaf.dtype, device=mask.device)
            # A network may write into what a module gave it.
            return leaf.value.clone() if isinstance(leaf.value, Tensor) else leaf.value

        answers: dict[nn.Module, list[object]] = {}
        for output in outputs:
            given = pytree.tree_unflatten([real(leaf) for leaf in output.leaves], output.spec)
            answers.setdefault(output.module, []).append(given)
        fed = {name: real(leaf) for name, leaf in self._inputs.items()}
        with replaced(answers):
            features: Features = self.extractor(cast("Batch", fed))
        return features

    def stages(self) -> Sequence[Stage]:
        """Those of the real extractor."""
        return self.extractor.stages()


def name_of(number: int) -> str:
    """By which a batch has the part of a number."""
    return f"frozen.{number}"


@dataclass(frozen=True)
class Cut:
    """Where a network is cut.

    Args:
        extractor: the real one.
        frozen: the modules of its frozen stages.
        inputs: as `FromBoundary` takes them.
        outputs: as `FromBoundary` takes them.
        last: how many calls of frozen modules there are until all has been given that is kept.
        layout: of what is kept.
        empty: as `FromBoundary` takes it.
    """

    extractor: FeatureExtractor
    frozen: Sequence[nn.Module]
    inputs: Mapping[str, Leaf]
    outputs: Sequence[Output | None]
    last: int
    layout: Layout
    empty: bool = False

    @property
    def rest(self) -> FromBoundary:
        """What goes on from the boundary."""
        return FromBoundary(self.extractor, self.inputs, self.outputs, empty=self.empty)

    def compute(self, batch: Batch) -> list[Tensor]:
        """What is kept of a batch; what comes behind the boundary is not computed."""
        with recorded(self.frozen, stop_after=self.last) as calls, suppress(ReachedError):
            self.extractor(batch)
        return self.kept(batch, calls)

    def kept(self, batch: Batch, calls: Sequence[Call]) -> list[Tensor]:
        """The tensors of all parts, in their order."""
        found: dict[int, Tensor] = {}
        for name, leaf in self.inputs.items():
            if isinstance(leaf, Kept):
                found[leaf.number] = batch[name]
        for output, call in zip(self.outputs, calls, strict=False):
            for leaf, tensor in zip(output.leaves if output else (), call.leaves, strict=output is not None):
                if isinstance(leaf, Kept):
                    assert isinstance(tensor, Tensor)
                    found[leaf.number] = tensor
        return [found[number] for number in range(len(self.layout.parts))]


def sizes_of(batch: Batch, lengths: Sequence[int]) -> Sizes:
    """The sizes of a batch. Tokens are looked for where a network is fed numbers of them, int (B, T)."""
    width = next((t.shape[1] for t in batch.values() if t.ndim == 2 and not t.is_floating_point()), None)
    return Sizes(len(lengths)) if width is None else Sizes(len(lengths), width, sum(lengths))


def in_precision(cut: Cut, batch: Batch, dtype: torch.dtype, device: torch.device) -> Cut:
    """The same cut, with what is kept and what is hollow as they are where the forward pass computes in a precision."""
    with autocast(device, dtype), torch.no_grad(), recorded(cut.frozen) as calls:
        cut.extractor(batch)
    parts = list(cut.layout.parts)

    def seen_as(leaf: Leaf, value: object) -> Leaf:
        if isinstance(leaf, Same):
            return Same(value)
        assert isinstance(value, Tensor)
        if isinstance(leaf, Hollow):
            return replace(leaf, dtype=value.dtype)
        parts[leaf.number] = replace(parts[leaf.number], dtype=value.dtype)
        return leaf

    outputs = [
        output and replace(output, leaves=tuple(map(seen_as, output.leaves, call.leaves)))
        for output, call in zip(cut.outputs, calls, strict=True)
    ]
    return replace(cut, outputs=outputs, layout=replace(cut.layout, parts=tuple(parts)))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What training computes under."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def mask_of(layout: Layout, batch: Batch, lengths: Sequence[int]) -> Tensor:
    """Which tokens of a batch are real, bool (B, T); one of each item where it is none of tokens."""
    width = sizes_of(batch, lengths).width if layout.per_token else 1
    return layout.mask(lengths if layout.per_token else [1] * len(lengths), width)


def batch_of(tensors: Sequence[Tensor], mask: Tensor, device: torch.device) -> dict[str, Tensor]:
    """A batch that `FromBoundary` takes."""
    batch = {name_of(number): tensor for number, tensor in enumerate(tensors)} | {MASK: mask}
    return {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it, a module and all in it are in evaluation mode, as what is frozen is in training."""
    modes = [(inner, inner.training) for inner in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in modes:
            inner.training = training
