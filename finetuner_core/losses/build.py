"""A loss by name, whichever plugin has it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.errors import PluginError
from finetuner_core.values import OptionValue, quote, resolve_options


def loss_options(name: str, given: Mapping[str, object]) -> dict[str, OptionValue]:
    """A value for each option of a loss.

    Raises:
        UnknownNameError: if nobody lists the loss.
        OptionError: if an option is unknown or not allowed.
    """
    return resolve_options(catalogue().find_loss(name)[1].options, given, f"loss {name}")


def build_loss(name: str, dim: int, options: Mapping[str, OptionValue]) -> nn.Module:
    """A loss for embeddings of a width.

    Args:
        name: bare, or with its plugin's namespace.
        dim: width of the embeddings.
        options: what `loss_options` gave.

    Raises:
        UnknownNameError: if nobody lists it.
        PluginError: if its plugin fails, or does not give a module.
    """
    plugin, info = catalogue().find_loss(name)
    module = call(plugin, "build_loss", info=info, dim=dim, options=options)
    if not isinstance(module, nn.Module):
        raise PluginError(f'Plugin "{plugin.namespace}": build_loss gave {quote(module)}, not a module.')
    return module
