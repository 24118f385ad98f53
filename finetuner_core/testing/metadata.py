"""Checks of what a plugin says of itself. They need no torch."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

from finetuner_core.catalogue.discovery import GROUP, Plugin, discover
from finetuner_core.catalogue.names import resolve
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.errors import FinetunerError, UnknownNameError
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.testing.listing import Listing, list_afresh, rows_of
from finetuner_core.values import BackboneInfo, quote


def check_entry_point(subject: Subject) -> None:
    """One entry point of the group has the namespace, and the plugin behind it loads.

    Two distributions that claim one namespace would both be refused, and a name with a typing error never found.
    """
    entries = list(entry_points(group=GROUP, name=subject.namespace))
    distributions = sorted(str(entry.dist and entry.dist.metadata["Name"]) for entry in entries)
    require(
        bool(entries),
        f"No entry point of the group {GROUP} is named {quote(subject.namespace)}.",
        f'In pyproject.toml write [project.entry-points."{GROUP}"] {subject.namespace} = "package.plugin", '
        "and install the package anew: pip install -e .",
    )
    require(
        len(entries) == 1,
        f"{len(entries)} entry points of the group {GROUP} are named {quote(subject.namespace)}: "
        f"of {', '.join(distributions)}.",
        "Uninstall one of them, or choose another namespace.",
    )
    _loaded(subject)


def check_light_import(subject: Subject) -> None:
    """Importing and listing the plugin, in a new process, imports nothing heavy.

    Every command imports every plugin: one that imports torch at the top costs each of them seconds.
    """
    heavy = _listing(subject).heavy
    require(
        not heavy,
        f'Importing the plugin "{subject.namespace}" imports {", ".join(heavy)}.',
        "Import these inside the hooks that build, or in a module that only these import.",
    )
    _require_loaded(_listing(subject))


def check_same_rows(subject: Subject) -> None:
    """The plugin lists the same rows each time, in a new process as well.

    The table is read, written into files and compared: rows may not depend on time, order of a set, disk or network.
    """
    first, second, afresh = rows_of(_loaded(subject)), rows_of(_loaded(subject)), _listing(subject)
    _require_loaded(afresh)
    for rows, when in ((second, "the second time"), (afresh.rows, "in a new process")):
        changed = [row for pair in zip(first, rows, strict=False) if pair[0] != pair[1] for row in pair]
        require(
            rows == first,
            f'The plugin "{subject.namespace}" lists {len(first)} rows, and {when} {len(rows)} other ones'
            + (f": {changed[0]}, then {changed[1]}." if changed else "."),
            "Give the rows of list_* as literals, in a tuple.",
        )


def check_no_socket(subject: Subject) -> None:
    """Importing and listing the plugin asks no network, which may not be there, and would be asked by every command."""
    attempts = _listing(subject).attempts
    require(
        not attempts,
        f'Importing and listing the plugin "{subject.namespace}" asked the network for {", ".join(attempts[:3])}.',
        "Give the rows of list_* as literals; what has to be looked up belongs into find_backbone.",
    )
    _require_loaded(_listing(subject))


def check_rows(subject: Subject) -> None:
    """The rows say what is so: their poolings exist, their widths can be known, and their full names mean them.

    That each of their fields is of its kind, and that no name comes twice, is seen when the plugin is admitted.
    """
    for row in _loaded(subject).backbones:
        _check_row(row)


def _check_row(row: BackboneInfo) -> None:
    for pooling in row.poolings:
        try:
            catalogue().find_pooling(pooling)
        except UnknownNameError as error:
            fail(f"{row.full_name} lists a pooling that there is not. {error}", "Correct the row's poolings.")
    require(
        len(set(row.poolings)) == len(row.poolings),
        f"{row.full_name} lists a pooling twice: {', '.join(row.poolings)}.",
        "Name each once, the default first.",
    )
    require(
        row.output_dim is not None or bool(row.options),
        f"{row.full_name} has output_dim None, which says that an option decides, but it has no options.",
        "Give the width of the vectors that the model emits with its first pooling.",
    )
    try:
        meant = resolve(catalogue(), row.full_name)
    except FinetunerError as error:
        fail(f"{row.full_name} is listed, but its name means nothing: {error}", "Give it another name.")
    require(
        (meant, meant.namespace) == (row, row.namespace),
        f"{row.full_name} is listed, but the name means another row: {meant}.",
        "Give each row a name of its own.",
    )


def _loaded(subject: Subject) -> Plugin:
    """The plugin, discovered anew."""
    found = [plugin for plugin in discover() if plugin.namespace == subject.namespace]
    problems = [plugin.problem for plugin in found if plugin.problem]
    require(not problems, "\n".join(problems), "Set FINETUNER_STRICT=1 to see where.")
    require(
        len(found) == 1 and found[0].hooks is not None,
        f"No plugin with the namespace {quote(subject.namespace)} is loaded.",
        f"Install it with its entry point in the group {GROUP}; FINETUNER_DISABLE_PLUGINS must not name it.",
    )
    return found[0]


def _require_loaded(listing: Listing) -> None:
    """What did not load was not seen."""
    require(not listing.problem, f"In a new process: {listing.problem}", "See that it loads wherever it is started.")


@functools.lru_cache(maxsize=1)
def _listing(subject: Subject) -> Listing:
    """What a new process sees, asked once for all checks of a plugin."""
    return list_afresh(subject.namespace)
