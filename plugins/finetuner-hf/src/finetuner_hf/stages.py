"""The parts of a transformer, from its input to its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from finetuner_core.interfaces import Stage

# Positions that every layer reads: T5 keeps them in its first layer, MPNet and DeBERTa beside the layers.
_POSITIONS = ("relative_attention_bias", "rel_embeddings")


def transformer_stages(tower: nn.Module) -> Sequence[Stage]:
    """Embeddings, then each layer, then what follows the layers.

    The layers are the longest list of modules in the tower (with those beside it that are as long, where a layer is
    spread over several); what is registered before them feeds them, and what is registered after them takes what they
    give. Positions that all layers read belong to the embeddings, wherever they stand.

    Args:
        tower: one network, such as a `BertModel`.
    """
    lists = [(path, module) for path, module in tower.named_modules() if isinstance(module, nn.ModuleList)]
    path, longest = max(lists, key=lambda found: len(found[1]))
    before, parameters, parent, after = _around(tower, path.split("."))
    beside = [child for child in parent.children() if isinstance(child, nn.ModuleList) and len(child) == len(longest)]
    layers = [list(parts) for parts in zip(*beside, strict=True)]
    early = _read_by_all_layers(tower, parent)
    with_first = _convolution(parent)
    layers[0] += with_first
    stages = [Stage("embeddings", tuple(_once([*before, *early])), tuple(parameters))]
    for number, parts in enumerate(layers, 1):
        stages.append(Stage(f"layer {number}", tuple(whole for part in parts for whole in _without(part, early))))
    rest = tuple(module for module in after if module not in (*early, *with_first, *beside))
    if any(True for module in rest for _ in module.parameters()):
        stages.append(Stage("output", rest))
    return stages


def image_stages(network: nn.Module) -> Sequence[Stage]:
    """Embeddings, then each layer, or each group of layers that see the image at one resolution, then what follows.

    Args:
        network: one network for images, whose outermost list of modules holds its layers or groups.
    """
    path, layers = next(found for found in network.named_modules() if isinstance(found[1], nn.ModuleList))
    before, parameters, _, after = _around(network, path.split("."))
    kind = "group" if any(isinstance(module, nn.ModuleList) for module in layers[0].modules()) else "layer"
    stages = [
        Stage("embeddings", tuple(before), tuple(parameters)),
        *(Stage(f"{kind} {number}", (layer,)) for number, layer in enumerate(layers, 1)),
        Stage("output", tuple(after)),
    ]
    return [
        stage for stage in stages if stage.parameters or any(any(True for _ in m.parameters()) for m in stage.modules)
    ]


def _around(
    tower: nn.Module, path: Sequence[str]
) -> tuple[list[nn.Module], list[nn.Parameter], nn.Module, list[nn.Module]]:
    """What stands before a module, the parameters on the way to it, its parent, and what stands after it."""
    before: list[nn.Module] = []
    parameters: list[nn.Parameter] = []
    after: list[nn.Module] = []
    at = parent = tower
    for step in path:
        parameters += list(at.parameters(recurse=False))
        children = dict(at.named_children())
        position = list(children).index(step)
        before += list(children.values())[:position]
        after[:0] = list(children.values())[position + 1 :]
        parent, at = at, children[step]
    return before, parameters, parent, after


def _read_by_all_layers(tower: nn.Module, parent: nn.Module) -> list[nn.Module]:
    found = [module for name, module in tower.named_modules() if name.rpartition(".")[2] in _POSITIONS]
    if len(found) != 1:
        # None, or one for each layer, to which it then belongs.
        return []
    children = dict(parent.named_children())
    norm = children.get("LayerNorm") if "rel_embeddings" in children else None
    return found if norm is None else [*found, norm]


def _convolution(parent: nn.Module) -> list[nn.Module]:
    """DeBERTa's, which takes what the first layer took and what it gave."""
    children = dict(parent.named_children())
    return [children["conv"]] if "rel_embeddings" in children and "conv" in children else []


def _without(module: nn.Module, others: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The module; or, where it holds one of the others, its parts without that."""
    if module in others:
        return
    if not any(inner in others for inner in module.modules()):
        yield module
        return
    for child in module.children():
        yield from _without(child, others)


def _once(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The modules without those whose parameters are all another's, as T5's two names for its embedding are."""
    seen: set[int] = set()
    for module in modules:
        own = {id(parameter) for parameter in module.parameters()}
        if not own or not own <= seen:
            yield module
        seen |= own
