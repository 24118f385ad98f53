"""Checks of what a plugin says of itself, none of which needs torch."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from finetuner_core.testing.check import METADATA, CheckError, all_checks
from finetuner_core.testing.network import watched_network

InstallPlugin = Callable[..., None]

GOOD = """
from finetuner_core.plugin import BackboneInfo, hookimpl

@hookimpl
def list_backbones():
    return (BackboneInfo("tiny", "text-to-text", 64, "CNN", "A small one", poolings=("mean",)),)
"""

ASK = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.create_connection(("weights.invalid", 443))
"""

CHANGE = """
import itertools
from finetuner_core.plugin import PoolingInfo, hookimpl
count = itertools.count()

@hookimpl
def list_poolings():
    return [PoolingInfo(f"number{next(count)}", "")]
"""


def failures(namespace: str = "good") -> dict[str, str]:
    found = {}
    for check in all_checks(namespace, backbones={}, poolings={}, losses={}):
        try:
            check()
        except CheckError as error:
            found[check.name] = str(error)
    return found


def test_a_plugin_without_fault_passes(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD)
    assert failures() == {}


def test_other_plugins_do_not_matter(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD)
    install_plugin("broken", "raise SystemExit(3)")
    install_plugin("slow", "import json.tool, tkinter, sqlite3, PIL")
    assert failures() == {}


def test_a_namespace_that_nobody_has(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD)
    found = failures("goof")
    assert set(found) == set(METADATA)
    assert 'No entry point of the group finetuner.plugins.v1 is named "goof"' in found["entry_point"]
    assert '[project.entry-points."finetuner.plugins.v1"] goof = "package.plugin"' in found["entry_point"]
    assert 'No plugin with the namespace "goof" is loaded' in found["rows"]


def test_two_distributions_that_claim_the_namespace(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD)
    install_plugin("good", GOOD, distribution="good-too")
    found = failures()
    assert set(found) == set(METADATA)
    assert "2 entry points of the group" in found["entry_point"]
    assert "of finetuner-good, good-too" in found["entry_point"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no config')", "its import raised RuntimeError: no config"),
        ("raise SystemExit(3)", "its import raised SystemExit: 3"),
        (GOOD.replace("list_backbones", "list_backbone"), 'there is no hook "list_backbone"'),
        (GOOD.replace('"mean"', "3"), "listing what it offers raised OptionError: tiny: poolings"),
        (GOOD.replace('"text-to-text"', '"text"'), 'task is "text"; allowed are'),
    ],
)
def test_a_plugin_that_does_not_load_says_why(source: str, reason: str, install_plugin: InstallPlugin) -> None:
    install_plugin("good", source)
    found = failures()
    assert set(found) == set(METADATA)
    assert reason in found["entry_point"]
    assert "Set FINETUNER_STRICT=1 to see where" in found["entry_point"]


def test_a_process_that_dies_is_told(install_plugin: InstallPlugin) -> None:
    """Here it is only the new one, as where something is set up in this one alone."""
    install_plugin("good", f"import os, sys\nif 'pytest' not in sys.modules:\n    os._exit(7)\n{GOOD}")
    found = failures()
    assert set(found) == {"light_import", "same_rows", "no_socket"}
    assert 'The process that listed the plugin "good" ended with code 7' in found["light_import"]
    assert 'python -m finetuner_core.testing.listing "good"' in found["light_import"]


def test_a_new_process_in_which_it_does_not_load_is_told(install_plugin: InstallPlugin) -> None:
    install_plugin("good", f"import sys\nassert 'pytest' in sys.modules, 'where is pytest'\n{GOOD}")
    found = failures()
    assert set(found) == {"light_import", "same_rows", "no_socket"}
    for message in found.values():
        assert 'In a new process: Plugin "good"' in message
        assert "where is pytest" in message


def test_a_pooling_that_is_listed_twice(install_plugin: InstallPlugin) -> None:
    install_plugin("good", GOOD.replace('("mean",)', '("mean", "mean")'))
    assert failures() == {
        "rows": "good/tiny lists a pooling twice: mean, mean.\nName each once, the default first.",
    }


@pytest.mark.parametrize(
    ("code", "check", "message"),
    [
        ("import tqdm", "light_import", 'Importing the plugin "good" imports tqdm.'),
        ("import many", "light_import", 'Importing the plugin "good" imports many.'),
        (ASK, "no_socket", 'Importing and listing the plugin "good" asked the network for weights.invalid.'),
        (CHANGE, "same_rows", "and the second time"),
    ],
)
def test_what_an_import_must_not_do(
    code: str, check: str, message: str, install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tqdm` is a stand-in for what is known to be heavy, and `many` is a package of a hundred modules."""
    for name, modules in {"tqdm": 1, "many": 100}.items():
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        names = [f"part{number}" for number in range(modules)]
        (package / "__init__.py").write_text("\n".join(f"from {name} import {part}" for part in names))
        for part in names:
            (package / f"{part}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    if check == "light_import":  # Only in the new process: this one may have the true package.
        code = f"import sys\nif 'pytest' not in sys.modules:\n    {code}"
    install_plugin("good", f"{code}\n{GOOD}")

    found = failures()

    assert list(found) == [check]
    assert message in found[check]


def test_the_network_is_watched_and_left_as_it_was() -> None:
    before = (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo, socket.gethostbyname)
    with watched_network() as attempts, socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        asking: list[Callable[[], object]] = [
            lambda: socket.create_connection(("weights.invalid", 443)),
            lambda: socket.gethostbyname("weights.invalid"),
            lambda: four.connect(("192.0.2.1", 80)),
            lambda: six.connect_ex(("2001:db8::1", 80, 0, 0)),
        ]
        for ask in asking:
            with pytest.raises(OSError, match="lets nobody ask the network"):
                ask()
    assert attempts == ["weights.invalid", "weights.invalid", "192.0.2.1:80", "2001:db8::1:80"]
    assert before == (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo, socket.gethostbyname)


def test_sockets_between_processes_of_one_machine_are_left_alone() -> None:
    with watched_network() as attempts:
        one, other = socket.socketpair()
        one.send(b"a")
        assert other.recv(1) == b"a"
        one.close()
        other.close()
    assert attempts == []
