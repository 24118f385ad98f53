"""What a check is, which there are, and how one fails. Nothing heavy is imported before a check runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from finetuner_core.errors import OptionError
from finetuner_core.values import quote

# The manifest: each check, and the module of this folder that has it as a function `check_...`.
METADATA = {
    "entry_point": "metadata",
    "light_import": "metadata",
    "same_rows": "metadata",
    "no_socket": "metadata",
    "rows": "metadata",
}
BACKBONE = {
    "modalities": "feeding",
    "preprocess": "feeding",
    "pickle": "feeding",
    "inputs": "feeding",
    "features": "vectors",
    "width": "vectors",
    "distinct": "vectors",
    "batch": "vectors",
    "order": "vectors",
    "padding": "vectors",
    "eval": "vectors",
    "bf16": "vectors",
    "gradient": "weights",
    "stages": "weights",
    "save": "weights",
    "leftovers": "weights",
    "unknown_option": "weights",
    "offline": "weights",
}
POOLING = dict.fromkeys(("width", "padding", "one_token", "gradient"), "poolings")
LOSS = dict.fromkeys(("scalar", "gradient", "references", "scored", "excluded", "no_pairs", "order"), "losses")

_COMPUTING = ("torch", "numpy", "safetensors", "tqdm")


class CheckError(AssertionError):
    """A plugin does not do what it has to; the message says what was wrong, and what to do."""


def fail(wrong: str, cure: str) -> NoReturn:
    """Fails the check that runs.

    Args:
        wrong: what was found, with its value.
        cure: what to do.
    """
    __tracebackhide__ = True
    raise CheckError(f"{wrong}\n{cure}")


def require(condition: bool, wrong: str, cure: str) -> None:
    """Fails the check that runs unless something holds."""
    __tracebackhide__ = True
    if not condition:
        fail(wrong, cure)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is checked. Checks of one subject share it, so that what is costly is made once.

    Args:
        namespace: of the plugin.
        name: of the backbone, the pooling or the loss, without the namespace; empty for the plugin itself.
        options: what it is built with.
    """

    namespace: str
    name: str
    options: Mapping[str, object]

    @property
    def full_name(self) -> str:
        """The unambiguous name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Check:
    """One check of one subject; calling it runs it.

    Args:
        id: how pytest names it.
        module: the module of this folder that has it.
        name: its name there, without `check_`.
        subject: what it checks.
    """

    id: str
    module: str
    name: str
    subject: Subject

    def __call__(self) -> None:
        """Runs the check.

        Raises:
            CheckError: if it fails.
        """
        __tracebackhide__ = True
        try:
            module = importlib.import_module(f"finetuner_core.testing.{self.module}")
        except ModuleNotFoundError as error:
            if error.name not in _COMPUTING:
                raise
            fail(
                f"{self.id} needs {error.name}, which is not installed.",
                'Install what computes: pip install "finetuner-core[train]"',
            )
        getattr(module, f"check_{self.name}")(self.subject)


def all_checks(
    namespace: str,
    *,
    backbones: Mapping[str, Mapping[str, object]],
    poolings: Mapping[str, Mapping[str, object]],
    losses: Mapping[str, Mapping[str, object]],
) -> list[Check]:
    """The checks of a plugin and of its parts, in the order of the manifest.

    Raises:
        OptionError: if two would have the same id.
    """
    checks = list(_checks("metadata", METADATA, Subject(namespace, "", {})))
    for prefix, manifest, parts in (
        ("", BACKBONE, backbones),
        ("pooling-", POOLING, poolings),
        ("loss-", LOSS, losses),
    ):
        for name, options in parts.items():
            checks += _checks(prefix + name, manifest, Subject(namespace, name, options))
    ids = [check.id for check in checks]
    for name in ids:
        if ids.count(name) > 1:
            raise OptionError(f"Two checks would be named {quote(name)}: check one of the two in a test of its own.")
    return checks


def _checks(prefix: str, manifest: Mapping[str, str], subject: Subject) -> Iterator[Check]:
    return (Check(f"{prefix}-{name}", module, name, subject) for name, module in manifest.items())
