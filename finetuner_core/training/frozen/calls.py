"""What the modules of a frozen part give when a network calls them, seen and replaced from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_ABSENT = object()


class Call(NamedTuple):
    """One call of a module.

    Args:
        module: what was called.
        leaves: the tensors, and whatever else, that it gave.
        spec: how they are put together: one tensor, a tuple, a dataclass of a library.
    """

    module: nn.Module
    leaves: list[object]
    spec: pytree.TreeSpec

    @property
    def tensors(self) -> list[Tensor]:
        """Those of the leaves that are tensors."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]


class ReachedError(Exception):
    """The last call that was asked for has been recorded."""


@contextmanager
def recorded(modules: Iterable[nn.Module], stop_after: int | None = None) -> Iterator[list[Call]]:
    """Within it, calls of some modules are noted in their order; not those that come from within one another.

    Args:
        modules: these, and all that they hold. Of one that is never called itself, such as a list, those that it holds
            are noted.
        stop_after: after how many calls `ReachedError` is raised, where the rest of the network is not to be computed.
    """
    calls: list[Call] = []
    inside: list[nn.Module] = []

    def enter(module: nn.Module, arguments: object) -> None:
        inside.append(module)

    def leave(module: nn.Module, arguments: object, output: object) -> None:
        inside.pop()
        if not inside:
            leaves, spec = pytree.tree_flatten(output)
            calls.append(Call(module, leaves, spec))
            if len(calls) == stop_after:
                raise ReachedError

    every = {id(inner): inner for module in modules for inner in module.modules()}.values()
    hooks = [module.register_forward_pre_hook(enter) for module in every]
    hooks += [module.register_forward_hook(leave) for module in every]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replaced(answers: Mapping[nn.Module, Sequence[object]]) -> Iterator[None]:
    """Within it, modules compute nothing: each gives one of its answers after the other, one in each call."""
    before = {module: vars(module).get("forward", _ABSENT) for module in answers}

    waiting = {module: iter(outputs) for module, outputs in answers.items()}
    try:
        for module, outputs in waiting.items():
            vars(module)["forward"] = partial(_next, outputs)
        yield
        # Or the network is not the one any more that it was: what was kept has not got into it.
        if any(next(outputs, _ABSENT) is not _ABSENT for outputs in waiting.values()):
            raise RuntimeError("A frozen module was not called as often as when its features were cached.")
    finally:
        for module, forward in before.items():
            if forward is _ABSENT:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _next(outputs: Iterator[object], *arguments: object, **named: object) -> object:
    return next(outputs)
