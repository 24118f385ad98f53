"""The parts of a transformer, from its input to its output."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from finetuner_core.interfaces import Stage


def transformer_stages(tower: nn.Module) -> Sequence[Stage]:
    """Embeddings, then each layer, then what follows the layers.

    The layers are the longest list of modules in the tower; what is registered before them feeds them, and what is
    registered after them takes what they give.

    Args:
        tower: one network, such as a `BertModel`.
    """
    lists = [(path, module) for path, module in tower.named_modules() if isinstance(module, nn.ModuleList)]
    path, layers = max(lists, key=lambda found: len(found[1]))
    before, after = _around(tower, path.split("."))
    names = [f"layer {number}" for number in range(1, len(layers) + 1)]
    stages = [Stage("embeddings", *before)]
    stages += [Stage(name, (layer,)) for name, layer in zip(names, layers, strict=True)]
    if any(True for module in after for _ in module.parameters()):
        stages.append(Stage("output", after))
    return stages


def _around(
    tower: nn.Module, path: Sequence[str]
) -> tuple[tuple[tuple[nn.Module, ...], tuple[nn.Parameter, ...]], tuple[nn.Module, ...]]:
    before: list[nn.Module] = []
    parameters: list[nn.Parameter] = []
    after: list[nn.Module] = []
    at = tower
    for step in path:
        parameters += list(at.parameters(recurse=False))
        children = dict(at.named_children())
        position = list(children).index(step)
        before += list(children.values())[:position]
        after[:0] = list(children.values())[position + 1 :]
        at = children[step]
    return (tuple(before), tuple(parameters)), tuple(after)
