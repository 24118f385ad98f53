"""What the installed plugins offer, put together, and the one way in which their hooks are called."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from finetuner_core.catalogue.discovery import Plugin, describe, discover, strict
from finetuner_core.catalogue.quiet import quiet_libraries
from finetuner_core.errors import FinetunerError, PluginError, UnknownNameError
from finetuner_core.values import TASKS, BackboneInfo, LossInfo, PoolingInfo, near, quote

Row = TypeVar("Row", PoolingInfo, LossInfo)


def call(plugin: Plugin, hook: str, **arguments: object) -> object:
    """Calls one hook of one plugin; what it raises becomes the plugin's own failure, and what it prints is not shown.

    Raises:
        FinetunerError: as the plugin raised it, since it is meant for a person.
        PluginError: for any other exception, with what it was.
    """
    try:
        with quiet_libraries():
            result = getattr(plugin.relay(), hook)(**arguments)
            # A generator fails while it runs: it runs here.
            return tuple(result) if isinstance(result, Iterator) else result
    except FinetunerError:
        raise
    except (Exception, SystemExit) as error:
        if strict():
            raise
        raise PluginError(
            f'Plugin "{plugin.namespace}" ({plugin.distribution} {plugin.version}) failed in {hook}: '
            f"{describe(error)}\nSet FINETUNER_STRICT=1 to see where."
        ) from error


@dataclass(frozen=True)
class Catalogue:
    """The installed plugins and what they offer together."""

    plugins: tuple[Plugin, ...]

    @property
    def problems(self) -> list[str]:
        """One line for each plugin that is installed but not there."""
        return [plugin.problem for plugin in self.plugins if plugin.problem]

    def list_backbones(self, task: str | None = None) -> list[BackboneInfo]:
        """The rows of the table: by task, then in the order in which the plugins list them.

        Raises:
            UnknownNameError: if there is no such task.
        """
        if task is not None and task not in TASKS:
            raise UnknownNameError(f"There is no task {quote(task)}.{near(task, TASKS)}\nTasks: {', '.join(TASKS)}.")
        rows = [row for plugin in self.plugins for row in plugin.backbones if task in (None, row.task)]
        return sorted(rows, key=lambda row: TASKS.index(row.task))

    def plugin_of(self, row: BackboneInfo) -> Plugin:
        """The plugin that gave a row."""
        return next(plugin for plugin in self.plugins if plugin.namespace == row.namespace)

    def find_pooling(self, name: str) -> tuple[Plugin, PoolingInfo]:
        """The pooling of that name, bare or with its namespace, and the plugin that builds it.

        Raises:
            UnknownNameError: if nobody lists it, or more than one do.
        """
        return self._find_part("pooling", name, lambda plugin: plugin.poolings)

    def find_loss(self, name: str) -> tuple[Plugin, LossInfo]:
        """The loss of that name, bare or with its namespace, and the plugin that builds it.

        Raises:
            UnknownNameError: if nobody lists it, or more than one do.
        """
        return self._find_part("loss", name, lambda plugin: plugin.losses)

    def list_poolings(self) -> list[tuple[str, PoolingInfo]]:
        """Every pooling, with the shortest name by which `find_pooling` knows it."""
        return self._list_parts(lambda plugin: plugin.poolings)

    def list_losses(self) -> list[tuple[str, LossInfo]]:
        """Every loss, with the shortest name by which `find_loss` knows it."""
        return self._list_parts(lambda plugin: plugin.losses)

    def _list_parts(self, rows_of: Callable[[Plugin], tuple[Row, ...]]) -> list[tuple[str, Row]]:
        offers = [(plugin, row) for plugin in self.plugins for row in rows_of(plugin)]
        times = Counter(row.name for _, row in offers)
        return [(row.name if times[row.name] == 1 else f"{plugin.namespace}/{row.name}", row) for plugin, row in offers]

    def _find_part(self, kind: str, name: str, rows_of: Callable[[Plugin], tuple[Row, ...]]) -> tuple[Plugin, Row]:
        offers = [(plugin, row) for plugin in self.plugins for row in rows_of(plugin)]
        found = [(p, row) for p, row in offers if name in (row.name, f"{p.namespace}/{row.name}")]
        if len(found) > 1:
            spellings = " or ".join(f"{plugin.namespace}/{row.name}" for plugin, row in found)
            raise UnknownNameError(f"The {kind} {quote(name)} is listed by more than one plugin.\nWrite {spellings}.")
        if not found:
            known = [row.name for _, row in offers]
            installed = any(plugin.namespace == "metric-learning" for plugin in self.plugins)
            more = "" if kind != "loss" or installed else " More come with: pip install finetuner-metric-learning"
            raise UnknownNameError(
                f"There is no {kind} {quote(name)}.{near(name, known)}\nThere are: {', '.join(known)}.{more}"
            )
        return found[0]


@functools.cache
def catalogue() -> Catalogue:
    """What is installed, discovered once a process. `catalogue.cache_clear()` makes the next call look again."""
    return Catalogue(discover())
