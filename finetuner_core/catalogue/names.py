"""What a model's name means: a row of the table, another model of a plugin, or a folder."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from finetuner_core.catalogue.discovery import BUILTIN_NAMESPACE, Plugin
from finetuner_core.catalogue.registry import Catalogue, call
from finetuner_core.errors import FinetunerError, PluginError, UnknownNameError
from finetuner_core.untrusted import check_folder
from finetuner_core.values import BackboneInfo, near, quote

# What a person is told to install for which kind of data, where no plugin knows the name.
OFFICIAL_PLUGINS = {"timm": "images", "hf": "text, and text with images", "mlp": "vectors"}

# Of these that is said only to those who name them: few need them.
FURTHER_PLUGINS = ("openclip", "metric-learning")


def is_path(name: str) -> bool:
    """Whether a model's name is a path: only what looks like one is, so that a folder never shadows a name.

    >>> is_path("./bert"), is_path("bert")
    (True, False)
    """
    return name in (".", "..", "~") or name.startswith(("./", "../", "/", "~/", ".\\", "..\\")) or name[1:3] == ":\\"


def search(catalogue: Catalogue, pattern: str) -> tuple[list[str], list[str]]:
    """Full names of all that is reachable and matches a shell-style pattern, listed or not. It may import.

    Args:
        catalogue: the installed plugins.
        pattern: such as `convnext*`, or `timm/convnext*` for the models of one plugin.

    Returns:
        The names, sorted, and a line for each plugin that could not be asked.
    """
    found = {
        row.full_name
        for row in catalogue.list_backbones()
        if fnmatch.fnmatchcase(row.name, pattern) or fnmatch.fnmatchcase(row.full_name, pattern)
    }
    problems = catalogue.problems
    for plugin in catalogue.plugins:
        if plugin.hooks is not None:
            try:
                found.update(_find_names(plugin, pattern.removeprefix(f"{plugin.namespace}/")))
            except FinetunerError as error:
                problems.append(str(error).partition("\n")[0])
    return sorted(found), problems


def _find_names(plugin: Plugin, pattern: str) -> list[str]:
    names = call(plugin, "find_backbone_names", pattern=pattern)
    if names is None:
        return []
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise PluginError(f'Plugin "{plugin.namespace}": find_backbone_names gave {quote(names)}, not names.')
    return [f"{plugin.namespace}/{name}" for name in names]


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
    rows = catalogue.list_backbones()
    # A full name is never ambiguous, also where another plugin lists a name that is spelt the same.
    listed = [row for row in rows if row.full_name == name] or [row for row in rows if row.name == name]
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
        # Without the namespace, which all of them share and which would make any of them seem near.
        candidates = [known.removeprefix(f"{namespace}/") for known in search(Catalogue((owner,)), "*")[0]]
        raise UnknownNameError(
            f'Plugin "{namespace}" knows no model {quote(rest)}.{near(rest, candidates)}\n'
            f"See all of its models: finetuner list --search '{namespace}/*'"
        )
    return row


def _ask(plugin: Plugin, name: str) -> BackboneInfo | None:
    if is_path(name):
        check_folder(Path(os.path.expanduser(name)))  # noqa: PTH111 - Path's raises where there is no such user
    row = call(plugin, "find_backbone", name=name)
    if row is None:
        return None
    if not isinstance(row, BackboneInfo):
        raise PluginError(f'Plugin "{plugin.namespace}": find_backbone gave {quote(row)}, not a BackboneInfo.')
    return replace(row, namespace=plugin.namespace)


def _resolve_folder(catalogue: Catalogue, name: str) -> BackboneInfo:
    folder = Path(os.path.expanduser(name)).resolve()  # noqa: PTH111 - Path's expands ./~name as well
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        raise UnknownNameError(f"There is no folder {quote(folder)}.")
    asked = [plugin for plugin in catalogue.plugins if plugin.hooks is not None]
    claims: list[BackboneInfo] = []
    failures: list[FinetunerError] = []
    for plugin in asked:
        try:
            row = _ask(plugin, str(folder))
        except FinetunerError as error:
            failures.append(error)
        else:
            claims += [row] if row is not None else []
    if not claims and failures:
        raise failures[0]
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
    if rest and namespace in {*missing, *FURTHER_PLUGINS} - namespaces:
        return f'The plugin "{namespace}" is not installed.\nInstall it: pip install finetuner-{namespace}'
    known = [text for row in catalogue.list_backbones() for text in (row.name, row.full_name)]
    message = f"No model is named {quote(name)}.{near(name, known)}"
    if name and os.path.exists(name):  # noqa: PTH110 - Path.exists raises where a name is too long
        return f"{message}\nTo open the folder of that name, write ./{name}"
    if problem := _problem(catalogue):
        return f"{message}\n{problem}"
    if missing:
        installs = ", ".join(f"finetuner-{plugin} ({OFFICIAL_PLUGINS[plugin]})" for plugin in missing)
        return f"{message}\nPlugins that are not installed may know it: pip install {installs}"
    plugin = "hf" if "/" in name else "timm"
    return f"{message}\nA model that is not in the table needs its plugin's name before it, such as {plugin}/{name}"


def _problem(catalogue: Catalogue) -> str:
    """The first plugin that is installed and not there, or those that were switched off; empty where there is none."""
    disabled = [plugin.namespace for plugin in catalogue.plugins if plugin.status == "disabled"]
    switched_off = f"Switched off by FINETUNER_DISABLE_PLUGINS: {', '.join(disabled)}." if disabled else ""
    return catalogue.problems[0] if catalogue.problems else switched_off
