"""What a network holds and does not need for what is asked of it."""

from __future__ import annotations

from torch import Tensor, nn


def keep_unused(network: nn.Module, output: Tensor) -> None:
    """Makes buffers of all parameters that have no part in an output: they are saved, and are not trained.

    Which these are is not looked up by family but read from the graph that autograd has drawn: a second head, the norm
    behind a pooling that is not asked for, a mask token, frozen positions. As buffers they keep their names, so that
    what is saved has all that timm expects to find in it.

    Args:
        network: changed in place.
        output: what it made, with its graph.
    """
    used = reached(output)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in used:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())


def forget(network: nn.Module) -> None:
    """Lets a network in evaluation drop what it keeps from one image to the next, computed from its parameters.

    Networks with a table of attention biases do so until they are trained; what they keep would hide the table.
    """
    network.train()
    network.eval()


def reached(output: Tensor) -> set[int]:
    """Ids of the leaves of an output's graph."""
    reached, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return reached
