"""What a model's name means: a row of the table, another model of a plugin, or a folder."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from finetuner_core.catalogue.discovery import BUILTIN_NAMESPACE, Plugin
from finetuner_core.catalogue.registry import Catalogue, call
from finetuner_core.errors import PluginError, UnknownNameError
from finetuner_core.values import BackboneInfo, near, quote

# What a person is told to install for which kind of data, where no plugin knows the name.
OFFICIAL_PLUGINS = {"timm": "images", "hf": "text, and text with images", "mlp": "vectors"}


def is_path(name: str) -> bool:
    """Whether a model's name is a path: only what looks like one is, so that a folder never shadows a name.

    >>> is_path("./bert"), is_path("bert")
    (True, False)
    """
    return name in (".", "..", "~") or name.startswith(("./", "../", "/", "~/", ".\\", "..\\")) or name[1:3] == ":\\"


def search(catalogue: Catalogue, pattern: str) -> list[str]:
    """Full names of all that is reachable and matches a shell-style pattern, listed or not. It may import.

    Args:
        catalogue: the installed plugins.
        pattern: such as `convnext*`, or `timm/convnext*` for the models of one plugin.
    """
    found = {
        row.full_name
        for row in catalogue.list_backbones()
        if fnmatch.fnmatchcase(row.name, pattern) or fnmatch.fnmatchcase(row.full_name, pattern)
    }
    for plugin in catalogue.plugins:
        if plugin.hooks is not None:
            matches = call(plugin, "find_backbone_names", pattern=pattern.removeprefix(f"{plugin.namespace}/"))
            if isinstance(matches, Iterable):
                found.update(f"{plugin.namespace}/{name}" for name in matches)
    return sorted(found)


def resolve(catalogue: Catalogue, name: str) -> BackboneInfo:
    """The row that a name or a path means.

    Args:
        catalogue: the installed plugins.
        name: `namespace/rest`, a name that exactly one plugin lists, or a folder in the format of one plugin.

    Raises:
        UnknownNameError: if nobody knows it, or more than one do; the message names what comes near.
        PluginError: if the plugin that it names did not load.
    """
    if is_path(name):
        return _resolve_folder(catalogue, name)
    listed = [row for row in catalogue.list_backbones() if name in (row.name, row.full_name)]
    if len(listed) > 1:
        spellings = " or ".join(row.full_name for row in listed)
        raise UnknownNameError(f"{quote(name)} is listed by more than one plugin.\nWrite {spellings}.")
    if listed:
        return listed[0]
    namespace, _, rest = name.partition("/")
    # A namespace that two distributions claim has two owners, neither of them loaded: the first says so.
    owner = next((plugin for plugin in catalogue.plugins if plugin.namespace == namespace), None)
    if not rest or owner is None:
        raise UnknownNameError(_unknown(catalogue, name))
    row = _ask(owner, rest)
    if row is None:
        candidates = search(catalogue, f"{namespace}/*")
        raise UnknownNameError(
            f'Plugin "{namespace}" knows no model {quote(rest)}.{near(name, candidates)}\n'
            f"See all of its models: finetuner list --search '{namespace}/*'"
        )
    return row


def _ask(plugin: Plugin, name: str) -> BackboneInfo | None:
    row = call(plugin, "find_backbone", name=name)
    if row is None:
        return None
    if not isinstance(row, BackboneInfo):
        raise PluginError(f'Plugin "{plugin.namespace}": find_backbone gave {quote(row)}, not a BackboneInfo.')
    return replace(row, namespace=plugin.namespace)


def _resolve_folder(catalogue: Catalogue, name: str) -> BackboneInfo:
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise UnknownNameError(f"There is no folder {quote(folder)}.")
    asked = [plugin for plugin in catalogue.plugins if plugin.hooks is not None]
    claims = [row for plugin in asked if (row := _ask(plugin, str(folder))) is not None]
    if len(claims) > 1:
        spellings = " or ".join(row.full_name for row in claims)
        raise UnknownNameError(f"More than one plugin can open {quote(folder)}.\nWrite {spellings}.")
    if not claims:
        offered = ", ".join(plugin.namespace for plugin in asked if plugin.namespace != BUILTIN_NAMESPACE)
        raise UnknownNameError(
            f"{quote(folder)} is no saved model, and no plugin knows its format (asked: {offered or 'none'}).\n"
            + (_problem(catalogue) or "A model folder holds a finetuner.json or its library's config.json.")
        )
    return claims[0]


def _unknown(catalogue: Catalogue, name: str) -> str:
    """Why a name means nothing, and what to do, whichever fits best."""
    namespaces = {plugin.namespace for plugin in catalogue.plugins}
    missing = [plugin for plugin in OFFICIAL_PLUGINS if plugin not in namespaces]
    namespace, _, rest = name.partition("/")
    if rest and namespace in missing:
        return f'The plugin "{namespace}" is not installed.\nInstall it: pip install finetuner-{namespace}'
    known = [text for row in catalogue.list_backbones() for text in (row.name, row.full_name)]
    message = f"No model is named {quote(name)}.{near(name, known)}"
    if Path(name).exists():
        return f"{message}\nTo open the folder of that name, write ./{name}"
    if problem := _problem(catalogue):
        return f"{message}\n{problem}"
    if missing:
        installs = ", ".join(f"finetuner-{plugin} ({OFFICIAL_PLUGINS[plugin]})" for plugin in missing)
        return f"{message}\nPlugins that are not installed may know it: pip install {installs}"
    return f"{message}\nA model that is not in the table needs its plugin's name before it, such as timm/{name}"


def _problem(catalogue: Catalogue) -> str:
    return catalogue.problems[0] if catalogue.problems else ""
