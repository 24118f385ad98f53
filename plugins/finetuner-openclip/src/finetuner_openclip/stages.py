"""The parts of a tower from its input to its output, whichever library it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from finetuner_core.interfaces import Stage

Part = nn.Module | nn.Parameter

_FIRST = ("stem", "patch_embed")
"""Attributes that make tokens or a map of an image, and are one thing, however many layers they have."""

_LAST = ("proj", "text_projection", "head")
"""Attributes that hold what comes last, wherever they are registered: bare parameters are before all modules."""


def stages_of(tower: nn.Module) -> Sequence[Stage]:
    """Embeddings, each layer, and what follows the layers.

    Layers are the entries of the outermost lists of modules. What is registered before the first feeds it, what stands
    between two belongs to the later one, and what is registered after the last takes what it gives.

    Args:
        tower: of open_clip, or of timm or transformers as open_clip wraps them.
    """
    embeddings: list[Part] = []
    layers: list[list[Part]] = []
    waiting: list[Part] = embeddings
    for part, is_layer in _parts(tower, set()):
        if is_layer:
            layers.append([*(waiting if layers else ()), part])
            waiting = []
        else:
            waiting.append(part)
    named = {"embeddings": embeddings}
    named |= {f"layer {number}": parts for number, parts in enumerate(layers, start=1)}
    if layers:
        named["output"] = waiting
    return [_stage(name, parts) for name, parts in named.items() if any(_holds_parameters(part) for part in parts)]


def _stage(name: str, parts: Sequence[Part]) -> Stage:
    modules = tuple(part for part in parts if isinstance(part, nn.Module))
    return Stage(name, modules, tuple(part for part in parts if isinstance(part, nn.Parameter)))


def _parts(module: nn.Module, seen: set[nn.Module]) -> Iterator[tuple[Part, bool]]:
    """What a module is made of, in order, and of each whether it is a layer."""
    last: list[Part] = []
    for name, parameter in module.named_parameters(recurse=False):
        if name in _LAST:
            last.append(parameter)
        else:
            yield parameter, False
    for name, child in module.named_children():
        if child in seen:
            continue
        seen.add(child)
        if name in _LAST:
            last.append(child)
        elif name in _FIRST:
            yield child, False
        elif _is_list(child):
            yield from ((layer, _holds_parameters(layer)) for layer in child.children())
        elif any(_is_list(inner) for inner in child.modules()):
            yield from _parts(child, seen)
        else:
            yield child, False
    yield from ((part, False) for part in last)


def _is_list(module: nn.Module) -> bool:
    """Whether a module is a list of layers: of two or more that hold parameters."""
    return isinstance(module, nn.ModuleList | nn.Sequential) and sum(map(_holds_parameters, module.children())) > 1


def _holds_parameters(part: Part) -> bool:
    return isinstance(part, nn.Parameter) or any(True for _ in part.parameters())
