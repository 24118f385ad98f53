"""A network that is cut behind its frozen stages, without a word from its plugin, and proven to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Prepared, Stage
from finetuner_core.modeling.embed import Collate
from finetuner_core.training.frozen.calls import Call, ReachedError, recorded, replaced
from finetuner_core.training.frozen.layout import Axis, Layout, NotCachedError, Part, Sizes, axes_of

MASK = "frozen.mask"
"""By this name a batch says which tokens of its items are real, bool (B, T)."""

# Of the largest number, how much two ways to compute the same may differ: in float32 the order of sums is not the same.
_TOLERANCE = 1e-5
_GRADIENT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Hollow:
    """A tensor that has no part in what is computed and has to be there all the same."""

    axes: tuple[Axis, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Output:
    """What takes the place of one call of a frozen module.

    Args:
        module: what is called.
        leaves: of what it gives: the number of a part that is kept; a hollow tensor; or what is always the same.
        spec: how they are put together.
    """

    module: nn.Module
    leaves: tuple[object, ...]
    spec: pytree.TreeSpec


@dataclass(frozen=True)
class Kept:
    """The number of a part that is kept."""

    number: int


class FromBoundary(FeatureExtractor):
    """The real extractor, whose frozen modules are not computed: they give what was kept of them.

    Args:
        extractor: the real one, which is trained through this one.
        inputs: what stands in the place of each tensor of its batch.
        outputs: and in that of each call of a frozen module, in the order of the calls.
        empty: whether hollow tensors have no items at all, so that nothing is computed of them; else they are zeros.
    """

    def __init__(
        self, extractor: FeatureExtractor, inputs: Mapping[str, object], outputs: Sequence[Output], *, empty: bool
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.dim, self.padding_free = extractor.dim, extractor.padding_free
        self._inputs, self._outputs, self._empty = inputs, outputs, empty

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D) of what was kept, by the names of `name_of`, and of the mask."""
        mask = batch[MASK]
        has_tokens = any("N" in self._axes(leaf) for output in self._outputs for leaf in output.leaves)
        sizes = Sizes(len(mask), mask.shape[1], int(mask.sum()) if has_tokens else None)

        def real(leaf: object) -> object:
            if isinstance(leaf, Kept):
                return batch[name_of(leaf.number)]
            if isinstance(leaf, Hollow):
                shape = (0 if self._empty and axis == "B" else sizes.of(axis) for axis in leaf.axes)
                return torch.zeros(*shape, dtype=leaf.dtype, device=mask.device)
            # A network may write into what a module gave it.
            return leaf.clone() if isinstance(leaf, Tensor) else leaf

        answers: dict[nn.Module, list[object]] = {}
        for output in self._outputs:
            given = pytree.tree_unflatten([real(leaf) for leaf in output.leaves], output.spec)
            answers.setdefault(output.module, []).append(given)
        fed = {name: real(leaf) for name, leaf in self._inputs.items()}
        with replaced(answers):
            features: Features = self.extractor(cast("Batch", fed))
        return features

    def stages(self) -> Sequence[Stage]:
        """Those of the real extractor."""
        return self.extractor.stages()

    @staticmethod
    def _axes(leaf: object) -> tuple[Axis, ...]:
        return leaf.axes if isinstance(leaf, Hollow) else ()


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
    inputs: Mapping[str, object]
    outputs: Sequence[Output]
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
            for leaf, tensor in zip(output.leaves, call.leaves, strict=True):
                if isinstance(leaf, Kept):
                    assert isinstance(tensor, Tensor)
                    found[leaf.number] = tensor
        return [found[number] for number in range(len(self.layout.parts))]


@dataclass(frozen=True)
class Probe:
    """Items with which a network is tried.

    Args:
        feed: tells how long they are, and makes batches of them.
        prepared: some items, of different lengths where they have any.
        device: where the network is.
    """

    feed: Collate
    prepared: Sequence[Prepared]
    device: torch.device

    def batch(self, prepared: Sequence[Prepared]) -> tuple[dict[str, Tensor], list[int]]:
        """A batch, and the length of each of its items."""
        batch = {name: tensor.to(self.device) for name, tensor in self.feed.collate(prepared).items()}
        return batch, [self.feed.length(item) for item in prepared]

    def two(self) -> Iterator[list[Prepared]]:
        """Two batches in which items, width and tokens are all different numbers, where such can be found."""
        ordered = sorted(self.prepared, key=self.feed.length)
        for count in range(3, 8):
            # From the longest to the shortest; and without the longest ones.
            first = [ordered[-1 - (number * (len(ordered) - 1)) // (count - 1)] for number in range(count)]
            second = [ordered[(number * (len(ordered) - 1)) // (2 * count)] for number in range(count - 1)]
            if all(sizes_of(*self.batch(items)).distinct for items in (first, second)):
                break
        yield first
        yield second


def sizes_of(batch: Batch, lengths: Sequence[int]) -> Sizes:
    """The sizes of a batch. Tokens are looked for where a network is fed numbers of them, int (B, T)."""
    width = next((t.shape[1] for t in batch.values() if t.ndim == 2 and not t.is_floating_point()), None)
    return Sizes(len(lengths)) if width is None else Sizes(len(lengths), width, sum(lengths))


def find_cut(extractor: FeatureExtractor, frozen: Sequence[nn.Module], probe: Probe) -> Cut:
    """Cuts a network behind its frozen stages.

    The network is run as it is, and each call of a frozen module is noted. Run again with each of their outputs as a
    leaf of its own, autograd tells on which of them the features depend: these are kept, usually one. For the others
    something of their shape will do, which is known from two batches of different sizes. Whether the network that is
    run in this way is the same, features and gradients show on a third batch.

    Args:
        extractor: in evaluation mode.
        frozen: the modules of its frozen stages.
        probe: items to try it with.

    Raises:
        NotCachedError: if it is not the same, or cannot be cut.
    """
    items = list(probe.two())
    (batch, lengths), (other, other_lengths) = (probe.batch(each) for each in items)
    sizes = (sizes_of(batch, lengths), sizes_of(other, other_lengths))
    with torch.enable_grad(), recorded(frozen) as calls:
        extractor(batch)
    with torch.no_grad(), recorded(frozen) as other_calls:
        extractor(other)
    if [(call.module, call.spec) for call in calls] != [(call.module, call.spec) for call in other_calls]:
        raise NotCachedError("its frozen modules are called differently from batch to batch")
    if any(tensor.requires_grad for call in calls for tensor in call.tensors):
        raise NotCachedError("a part that is trained comes before a frozen one")
    needed = _needed(extractor, batch, calls)
    parts: list[Part] = []

    def stand_in(key: tuple[object, object], value: object, seen: object) -> object:
        if not isinstance(value, Tensor) or not isinstance(seen, Tensor):
            return value
        axes = axes_of(value, seen, sizes)
        if axes is not None and "B" not in axes and torch.equal(value, seen):
            return value.detach()
        is_needed = key in needed or not value.is_floating_point()
        if axes is None or (is_needed and not Part(axes, value.dtype).is_possible):
            raise NotCachedError(f"a frozen module gives what is not an item's own, of shape {tuple(value.shape)}")
        if not is_needed:
            return Hollow(axes, value.dtype)
        by_channels = value.ndim == 4 and not value.is_contiguous()
        by_channels = by_channels and value.is_contiguous(memory_format=torch.channels_last)
        parts.append(Part(axes, value.dtype, by_channels))
        return Kept(len(parts) - 1)

    if any((None, name) in needed for name in batch):
        raise NotCachedError("what is trained reads the network's input again")
    inputs = {name: stand_in((None, name), tensor, other[name]) for name, tensor in batch.items()}
    outputs = [
        Output(
            call.module,
            tuple(
                stand_in((number, position), leaf, seen)
                for position, (leaf, seen) in enumerate(zip(call.leaves, other_call.leaves, strict=True))
            ),
            call.spec,
        )
        for number, (call, other_call) in enumerate(zip(calls, other_calls, strict=True))
    ]
    last = max((number for number, own in enumerate(outputs, 1) if _keeps(own)), default=0)
    if not last:
        raise NotCachedError("what is trained does not depend on what is frozen")
    has_tokens = any(part.has_tokens for part in parts)
    for empty in (False,) if has_tokens else (True, False):
        for left in (False, True) if has_tokens else (False,):
            cut = Cut(extractor, frozen, inputs, outputs, last, Layout(tuple(parts), left), empty)
            if _is_same(cut, probe, items):
                return cut
    raise NotCachedError("without its frozen part it does not give the same")


def in_precision(cut: Cut, batch: Batch, dtype: torch.dtype, device: torch.device) -> Cut:
    """The same cut, with what is kept and what is hollow as they are where the forward pass computes in a precision."""
    with autocast(device, dtype), torch.no_grad(), recorded(cut.frozen) as calls:
        cut.extractor(batch)
    parts = list(cut.layout.parts)

    def seen_as(leaf: object, value: object) -> object:
        if not isinstance(value, Tensor):
            return leaf
        if isinstance(leaf, Kept):
            parts[leaf.number] = replace(parts[leaf.number], dtype=value.dtype)
            return leaf
        return replace(leaf, dtype=value.dtype) if isinstance(leaf, Hollow) else value

    outputs = [
        replace(output, leaves=tuple(map(seen_as, output.leaves, call.leaves)))
        for output, call in zip(cut.outputs, calls, strict=True)
    ]
    return replace(cut, outputs=outputs, layout=replace(cut.layout, parts=tuple(parts)))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What training computes under."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def _keeps(output: Output) -> bool:
    return any(isinstance(leaf, Kept) for leaf in output.leaves)


def _needed(extractor: FeatureExtractor, batch: Batch, calls: Sequence[Call]) -> set[tuple[object, object]]:
    """On which tensors the features depend, of those that frozen modules gave and of the batch.

    Returns:
        For what a module gave the numbers of the call and of the leaf, for what is in the batch `None` and its name.
    """
    leaves: dict[tuple[object, object], Tensor] = {}

    def as_leaf(key: tuple[object, object], value: object) -> object:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves[key] = value.detach().clone().requires_grad_()
        # A network may write into it, which it must not into a leaf.
        return leaves[key].clone()

    answers: dict[nn.Module, list[object]] = {}
    for number, call in enumerate(calls):
        given = [as_leaf((number, position), leaf) for position, leaf in enumerate(call.leaves)]
        answers.setdefault(call.module, []).append(pytree.tree_unflatten(given, call.spec))
    fed = {name: as_leaf((None, name), tensor) for name, tensor in batch.items()}
    with torch.enable_grad(), replaced(answers):
        features: Features = extractor(cast("Batch", fed))
    if not leaves or not features.tokens.requires_grad:
        return set()
    value = features.tokens[features.mask].sum()
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {key for key, gradient in zip(leaves, gradients, strict=True) if gradient is not None}


def _is_same(cut: Cut, probe: Probe, items: Sequence[Sequence[Prepared]]) -> bool:
    """Whether features and gradients are those of the real network, for items that come from several batches."""
    records = []
    for own in items:
        batch, lengths = probe.batch(own)
        with torch.no_grad():
            kept = cut.compute(batch)
        records += cut.layout.records(kept, mask_of(cut.layout, batch, lengths))
    mixed = [item for own in items for item in own]
    turned = list(range(len(mixed)))[::-2] + list(range(len(mixed)))[-2::-2]
    batch, _ = probe.batch([mixed[number] for number in turned])
    tensors, mask = cut.layout.tensors([records[number] for number in turned])
    trained = [parameter for parameter in cut.extractor.parameters() if parameter.requires_grad]
    expected = _with_gradients(cut.extractor, batch, trained)
    try:
        found = _with_gradients(cut.rest, batch_of(tensors, mask, probe.device), trained)
    except Exception:  # each network has its own way not to take what it is given
        return False
    return _are_near(found[:1], expected[:1], _TOLERANCE) and _are_near(found[1:], expected[1:], _GRADIENT_TOLERANCE)


def _with_gradients(extractor: FeatureExtractor, batch: Batch, trained: Sequence[nn.Parameter]) -> list[Tensor]:
    """The features of all real tokens, and the gradient of each parameter for a sum of them with uneven weights."""
    with torch.enable_grad():
        features: Features = extractor(batch)
        tokens = features.tokens[features.mask]
        weights = torch.linspace(-1, 1, tokens.numel(), device=tokens.device).sin().view(tokens.shape)
        gradients = torch.autograd.grad((tokens * weights).sum(), trained, allow_unused=True)
    none = torch.zeros((), device=tokens.device)
    return [tokens.detach(), *(none if gradient is None else gradient for gradient in gradients)]


def _are_near(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> bool:
    if any(own.shape != other.shape for own, other in zip(found, expected, strict=True)):
        return False
    largest = max((other.abs().max() for other in expected if other.numel()), default=torch.zeros(()))
    # Not the other way round: NaN is near to nothing.
    return all(
        bool(((own - other).abs() <= tolerance * largest).all()) for own, other in zip(found, expected, strict=True)
    )


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
