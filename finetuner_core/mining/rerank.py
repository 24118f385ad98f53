"""Finds the plugin that opens a cross-encoder, and has it score what a search has found."""

from __future__ import annotations

from finetuner_core.artifacts.saved import model_name
from finetuner_core.catalogue.names import is_path
from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.errors import FinetunerError, PluginError, UnknownNameError
from finetuner_core.interfaces import CrossEncoder
from finetuner_core.values import quote


def load_cross_encoder(name: str) -> CrossEncoder:
    """The cross-encoder of that name, in evaluation mode.

    Args:
        name: `namespace/name`, a name without a namespace that some plugin knows, or a folder written as a path.

    Raises:
        UnknownNameError: if no plugin knows it.
        WeightsError: if its weights cannot be had, or it is none that gives one score.
    """
    plugins = [plugin for plugin in catalogue().plugins if plugin.hooks is not None]
    namespace, _, rest = name.partition("/")
    owners = [] if is_path(name) else [plugin for plugin in plugins if plugin.namespace == namespace and rest]
    failures: list[FinetunerError] = []
    for plugin in owners or plugins:
        try:
            found = call(plugin, "load_cross_encoder", name=rest if owners else model_name(name))
        except FinetunerError as error:
            failures.append(error)
            continue
        if found is None:
            continue
        if not isinstance(found, CrossEncoder):
            raise PluginError(
                f'Plugin "{plugin.namespace}": load_cross_encoder gave {quote(found)}, not a CrossEncoder.'
            )
        return found.eval()
    if failures:
        raise failures[0]
    raise UnknownNameError(
        f"No plugin opens {quote(name)} as a cross-encoder.\n"
        "Those of transformers come with: pip install finetuner-hf. A folder is written as a path: ./folder"
    )
