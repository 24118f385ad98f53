"""Finds plugins through entry points and admits each on its own, so that none can take another down.

pluggy's own loader imports all of them in one go, and one that fails takes every command with it. Here each plugin is
imported, validated and registered with a manager of its own; what goes wrong is recorded as that plugin's.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, TypeVar

import pluggy

from finetuner_core import builtin, hookspecs
from finetuner_core.errors import PluginError
from finetuner_core.values import BackboneInfo, LossInfo, PoolingInfo, is_namespace, near, quote

API_VERSION = "v1"
GROUP_PREFIX = "finetuner.plugins."
GROUP = GROUP_PREFIX + API_VERSION
BUILTIN_NAMESPACE = "finetuner"

Status = Literal["loaded", "failed", "refused", "disabled"]
Row = TypeVar("Row", BackboneInfo, PoolingInfo, LossInfo)


class _RefusedError(Exception):
    """What a plugin offers cannot be admitted; the message says why."""


@dataclass(frozen=True)
class Plugin:
    """What became of one entry point.

    Args:
        namespace: the entry's name.
        distribution: the package that declares it, as pip names it.
        version: that package's version.
        status: `loaded`, or why not: its import `failed`, what it offers was `refused`, a person `disabled` it.
        reason: what went wrong, on one line; empty where nothing did.
        import_seconds: how long its import took.
        heavy_imports: top-level packages with a hundred modules or more that its import brought in.
        hooks: its hook implementations, `None` unless loaded.
        backbones: the rows that it lists.
        poolings: the poolings that it lists.
        losses: the losses that it lists.
    """

    namespace: str
    distribution: str
    version: str
    status: Status = "loaded"
    reason: str = ""
    import_seconds: float = 0.0
    heavy_imports: tuple[str, ...] = ()
    hooks: pluggy.HookRelay | None = None
    backbones: tuple[BackboneInfo, ...] = ()
    poolings: tuple[PoolingInfo, ...] = ()
    losses: tuple[LossInfo, ...] = ()

    @property
    def problem(self) -> str:
        """One line that says which plugin is not there and why; empty where it is, or was switched off."""
        if self.status in ("loaded", "disabled"):
            return ""
        return f'Plugin "{self.namespace}" ({self.distribution} {self.version}) {self.status}: {self.reason}'

    def relay(self) -> pluggy.HookRelay:
        """Its hook implementations.

        Raises:
            PluginError: if it did not load; the message says why and what to do.
        """
        if self.hooks is None:
            cure = (
                "It is switched off by FINETUNER_DISABLE_PLUGINS."
                if self.status == "disabled"
                else 'Run "finetuner doctor" for details, or mend it with: '
                f"pip install --upgrade --force-reinstall {self.distribution}"
            )
            what = self.problem or f'Plugin "{self.namespace}" ({self.distribution} {self.version}) is disabled.'
            raise PluginError(f"{what}\n{cure}")
        return self.hooks


def strict() -> bool:
    """Whether a plugin's exception goes through as it is, which is for the plugin's author."""
    return os.environ.get("FINETUNER_STRICT", "") not in ("", "0")


def discover() -> tuple[Plugin, ...]:
    """Every plugin that is installed, loaded or not, ordered by namespace; the core's own poolings and losses last."""
    disabled = {name.strip() for name in os.environ.get("FINETUNER_DISABLE_PLUGINS", "").split(",")}
    claims: dict[str, list[EntryPoint]] = defaultdict(list)
    plugins: list[Plugin] = []
    entries = [(Plugin(entry.name, *_distribution(entry)), entry) for entry in _entries()]
    offered = {(plugin.distribution, plugin.namespace) for plugin, entry in entries if entry.group == GROUP}
    for plugin, entry in entries:
        if entry.group != GROUP and (plugin.distribution, plugin.namespace) in offered:
            continue  # It supports more than one API, this one among them.
        if entry.name in disabled:
            plugins.append(replace(plugin, status="disabled"))
        elif entry.group != GROUP:
            version = entry.group.removeprefix(GROUP_PREFIX)
            reason = f"it was built for plugin API {version}, and this core has {API_VERSION}"
            plugins.append(replace(plugin, status="refused", reason=reason))
        else:
            claims[entry.name].append(entry)
    for rivals in claims.values():
        plugins.extend(_admit(entry, rivals=[e for e in rivals if e is not entry]) for entry in rivals)
    core = Plugin(BUILTIN_NAMESPACE, "finetuner-core", _version("finetuner-core"))
    return (*sorted(plugins, key=lambda p: (p.namespace, p.distribution)), _register(core, builtin))


def _entries() -> Iterator[EntryPoint]:
    found = entry_points()
    for group in sorted(found.groups):
        if group.startswith(GROUP_PREFIX):
            yield from found.select(group=group)


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return entry.module, "?"
    try:
        return entry.dist.metadata["Name"] or entry.module, entry.dist.version or "?"
    except Exception:  # What an interrupted uninstall left has no metadata, and what is raised depends on the Python.
        return entry.module, "?"


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "?"


def _admit(entry: EntryPoint, rivals: list[EntryPoint]) -> Plugin:
    plugin = Plugin(entry.name, *_distribution(entry))
    if rivals:
        others = " and ".join(_distribution(rival)[0] for rival in rivals)
        return replace(plugin, status="refused", reason=f"{others} claims the same namespace; uninstall one of them")
    if entry.name == BUILTIN_NAMESPACE:
        reason = f"{quote(entry.name)} is the namespace of the core's own poolings and losses; choose another"
        return replace(plugin, status="refused", reason=reason)
    if not is_namespace(entry.name):
        reason = f"{quote(entry.name)} cannot be a namespace; use lower-case letters, digits, - and _"
        return replace(plugin, status="refused", reason=reason)
    before, start = set(sys.modules), time.perf_counter()
    try:
        with _quiet_stdout():
            module = entry.load()
    except (Exception, SystemExit) as error:
        if strict():
            raise
        return replace(plugin, status="failed", reason=f"its import raised {describe(error)}")
    seconds = time.perf_counter() - start
    sizes = Counter(name.partition(".")[0] for name in set(sys.modules) - before)
    heavy = tuple(sorted(name for name, modules in sizes.items() if modules >= 100))
    return _register(replace(plugin, import_seconds=seconds, heavy_imports=heavy), module)


def _quiet_stdout() -> contextlib.AbstractContextManager[object]:
    """What a plugin prints while it is imported or listed must not end up in a table or in JSON."""
    return contextlib.redirect_stdout(sys.stderr)


def _register(plugin: Plugin, module: object) -> Plugin:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=plugin.namespace)
        _check_hooks(manager, module)
        with _quiet_stdout():
            return replace(
                plugin,
                hooks=manager.hook,
                backbones=tuple(
                    replace(row, namespace=plugin.namespace) for row in _rows(manager.hook.list_backbones, BackboneInfo)
                ),
                poolings=_rows(manager.hook.list_poolings, PoolingInfo),
                losses=_rows(manager.hook.list_losses, LossInfo),
            )
    except (_RefusedError, pluggy.PluginValidationError) as error:
        if strict():
            raise
        return replace(plugin, status="refused", reason=" ".join(str(error).split()))
    except (Exception, SystemExit) as error:
        if strict():
            raise
        return replace(plugin, status="failed", reason=f"listing what it offers raised {describe(error)}")


def _check_hooks(manager: pluggy.PluginManager, module: object) -> None:
    callers = manager.get_hookcallers(module) or []
    known = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if "_" in name]
    if not callers:
        raise _RefusedError("it implements no hook; mark its functions with @hookimpl of finetuner_core.plugin")
    for caller in callers:
        if not caller.has_spec():
            raise _RefusedError(f"there is no hook {quote(caller.name)}.{near(caller.name, known)}")
        for implementation in caller.get_hookimpls():
            for parameter in inspect.signature(implementation.function).parameters.values():
                if parameter.default is not parameter.empty or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                    raise _RefusedError(
                        f"its {caller.name} declares {quote(parameter)}; a hook's parameters are plain names, "
                        "without defaults and not keyword-only"
                    )


def _rows(list_hook: Callable[[], Iterable[object] | None], kind: type[Row]) -> tuple[Row, ...]:
    rows = list_hook()
    if rows is None:
        return ()
    if not isinstance(rows, Iterable):
        raise _RefusedError(f"it lists {quote(rows)} where an iterable of {kind.__name__} is expected")
    admitted: dict[str, Row] = {}
    for row in rows:
        if not isinstance(row, kind):
            raise _RefusedError(f"it lists {quote(row)} where a {kind.__name__} is expected")
        if row.name in admitted:
            raise _RefusedError(f"it lists {quote(row.name)} twice")
        admitted[row.name] = row
    return tuple(admitted.values())


def describe(error: BaseException) -> str:
    """An exception on one line, its type first."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
