"""Finds out where a network can be cut, by running it, and proves that it is the same then."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Prepared
from finetuner_core.modeling.embed import Collate
from finetuner_core.training.frozen.calls import Call, recorded, replaced
from finetuner_core.training.frozen.cut import Cut, Hollow, Kept, Leaf, Output, Same, batch_of, mask_of, sizes_of
from finetuner_core.training.frozen.layout import Layout, NotCachedError, Part, Sizes, axes_of

# Of the largest number, how much two ways to compute the same may differ: in float32 the order of sums is not the same.
_TOLERANCE = 1e-5
_GRADIENT_TOLERANCE = 1e-4


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


def find_cut(extractor: FeatureExtractor, frozen: Sequence[nn.Module], probe: Probe) -> Cut:
    """Cuts a network behind its frozen stages.

    The network is run as it is, and each call of a frozen module is noted. Run again with each of their outputs as a
    leaf of its own, autograd tells on which of them the features depend: these are kept, usually one. For the others
    something of their shape will do, which is known from two batches of different sizes. Whether the network that is
    run in this way is the same, features and gradients show on a third batch. What is of no single item and needed
    nevertheless, such as the positions that all layers read, is computed in each step.

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
    seen = [[*zip(call.leaves, second.leaves, strict=True)] for call, second in zip(calls, other_calls, strict=True)]
    anew: set[nn.Module] = set()
    while True:
        needed = _needed(extractor, batch, calls, anew)
        roles = {
            (number, position): _role(pair, sizes, needed=(number, position) in needed)
            for number, pairs in enumerate(seen)
            for position, pair in enumerate(pairs)
            if calls[number].module not in anew
        }
        # What such a module is called with may be needed then, and was not before.
        more = {calls[number].module for (number, _), role in roles.items() if role is None}
        if not more:
            break
        anew |= more
    if any((None, name) in needed for name in batch):
        raise NotCachedError("what is trained reads the network's input again")
    fed = {name: _role((tensor, other[name]), sizes, needed=False) for name, tensor in batch.items()}
    if None in fed.values():
        raise NotCachedError("what it is fed has no part of each item's own")
    parts: list[Part] = []

    def leaf(role: Part | Hollow | Same | None) -> Leaf:
        assert role is not None
        if not isinstance(role, Part):
            return role
        parts.append(role)
        return Kept(len(parts) - 1)

    inputs = {name: leaf(role) for name, role in fed.items()}
    outputs = [
        None
        if call.module in anew
        else Output(
            call.module,
            tuple(leaf(roles[number, position]) for position in range(len(call.leaves))),
            call.spec,
        )
        for number, call in enumerate(calls)
    ]
    last = max((number for number, own in enumerate(outputs, 1) if _keeps(own)), default=0)
    if not last:
        raise NotCachedError("its frozen part gives nothing of an item's own")
    has_tokens = any(part.has_tokens for part in parts)
    for empty in (False,) if has_tokens else (True, False):
        for left in (False, True) if has_tokens else (False,):
            cut = Cut(extractor, frozen, inputs, outputs, last, Layout(tuple(parts), left), empty)
            if _is_same(cut, probe, items):
                return cut
    raise NotCachedError("without its frozen part it does not give the same")


def _role(pair: tuple[object, object], sizes: tuple[Sizes, Sizes], *, needed: bool) -> Part | Hollow | Same | None:
    """What can take the place of a value that was seen in two batches, `None` where nothing can."""
    value, other = pair
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return Same(value)
    axes = axes_of(value, other, sizes)
    if axes is None:
        return None
    if "B" not in axes and torch.equal(value, other):
        return Same(value.detach())
    if not needed and value.is_floating_point():
        return Hollow(axes, value.dtype)
    by_channels = value.ndim == 4 and not value.is_contiguous()
    by_channels = by_channels and value.is_contiguous(memory_format=torch.channels_last)
    part = Part(axes, value.dtype, by_channels)
    return part if part.is_possible else None


def _keeps(output: Output | None) -> bool:
    return output is not None and any(isinstance(leaf, Kept) for leaf in output.leaves)


def _needed(
    extractor: FeatureExtractor, batch: Batch, calls: Sequence[Call], anew: Container[nn.Module]
) -> set[tuple[object, object]]:
    """On which tensors the features depend, of those that frozen modules gave and of the batch.

    Args:
        extractor: the network.
        batch: what it was fed.
        calls: what its frozen modules gave.
        anew: those of them that are computed nevertheless.

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
        if call.module in anew:
            continue
        given = [as_leaf((number, position), leaf) for position, leaf in enumerate(call.leaves)]
        answers.setdefault(call.module, []).append(pytree.tree_unflatten(given, call.spec))
    fed = {name: as_leaf((None, name), tensor) for name, tensor in batch.items()}
    try:
        with torch.enable_grad(), replaced(answers):
            features: Features = extractor(cast("Batch", fed))
    except Exception as error:  # each network has its own way not to take what it is given
        raise NotCachedError(f"without its frozen part it fails: {type(error).__name__}: {error}") from error
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
