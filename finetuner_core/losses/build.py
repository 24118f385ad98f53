"""A loss by name, whichever plugin has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.errors import OptionError, PluginError
from finetuner_core.losses.excluded import takes_excluded
from finetuner_core.losses.matryoshka import matryoshka as over_widths
from finetuner_core.losses.memory import MemoryLoss
from finetuner_core.values import OptionValue, quote, resolve_options


def loss_options(name: str, given: Mapping[str, object]) -> dict[str, OptionValue]:
    """A value for each option of a loss.

    Raises:
        UnknownNameError: if nobody lists the loss.
        OptionError: if an option is unknown or not allowed.
    """
    return resolve_options(catalogue().find_loss(name)[1].options, given, f"loss {name}")


def build_loss(
    name: str,
    dim: int,
    options: Mapping[str, OptionValue],
    matryoshka: Sequence[int] = (),
    memory: int | None = None,
) -> nn.Module:
    """A loss for embeddings of a width.

    Args:
        name: bare, or with its plugin's namespace.
        dim: width of the embeddings.
        options: what `loss_options` gave.
        matryoshka: how many of the first features are to be an embedding too; the whole width always is.
        memory: how many embeddings of past batches are compared with as well.

    Raises:
        UnknownNameError: if nobody lists it.
        OptionError: if it cannot be had at these widths, or with a memory.
        PluginError: if its plugin fails, or does not give a module.
    """
    if wrong := [width for width in matryoshka if not 0 < width <= dim]:
        raise OptionError(f"matryoshka has the width {quote(wrong[0])}; embeddings of this model have {dim} features.")
    if matryoshka:
        loss: nn.Module = over_widths(
            lambda width: _build(name, width, options), sorted({*matryoshka, dim}, reverse=True)
        )
    else:
        loss = _build(name, dim, options)
    if memory is None:
        return loss
    if "pairs" not in catalogue().find_loss(name)[1].forms or not takes_excluded(loss):
        raise OptionError(
            f"The loss {name} cannot compare a batch with those before it.\n"
            "Leave out memory, or take a loss such as infonce."
        )
    return MemoryLoss(loss, dim, memory)


def _build(name: str, dim: int, options: Mapping[str, OptionValue]) -> nn.Module:
    plugin, info = catalogue().find_loss(name)
    module = call(plugin, "build_loss", info=info, dim=dim, options=options)
    if not isinstance(module, nn.Module):
        raise PluginError(f'Plugin "{plugin.namespace}": build_loss gave {quote(module)}, not a module.')
    return module
