"""The examination tells what is installed, what of it works, and what to do about the rest."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from finetuner_core.catalogue import doctor
from finetuner_core.catalogue.discovery import Plugin
from finetuner_core.catalogue.doctor import PluginReport, examine, torchvision_mismatch
from finetuner_core.catalogue.registry import Catalogue
from tests.conftest import HAS_TORCH, InstallPlugin

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="building a model needs torch")
CURE = "Install a matching pair: pip install --upgrade --force-reinstall torch torchvision"


def loads(body: str) -> str:
    """The toy plugin's `letters` with another `load_backbone`."""
    return (
        "from acme.plugin import BackboneInfo, ROWS, hookimpl, strip_head\n"
        "@hookimpl\ndef list_backbones():\n    return [ROWS['letters']]\n"
        f"@hookimpl\ndef load_backbone(info, pretrained, options):\n    {body}\n"
    )


def test_nothing_installed_is_no_problem() -> None:
    report = examine()
    assert (report.plugins, report.problems) == ([], [])
    assert report.render().endswith("No plugin is installed.\n\nNo problem found.")


@pytest.mark.usefixtures("acme")
def test_every_plugin_is_reported(install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin("broken", "1 / 0", version="2.5")
    install_plugin("none", "x = 1")
    install_plugin("off", "1 / 0")
    monkeypatch.setenv("FINETUNER_DISABLE_PLUGINS", "off")
    report = examine()

    assert [(p.namespace, p.distribution, p.status, p.models, p.load) for p in report.plugins] == [
        ("acme", "finetuner-acme 1.0", "loaded", 4, "-"),
        ("broken", "finetuner-broken 2.5", "failed", 0, "-"),
        ("none", "finetuner-none 1.0", "refused", 0, "-"),
        ("off", "finetuner-off 1.0", "disabled", 0, "-"),
    ]
    assert [problem.partition(":")[0] for problem in report.problems] == [
        'Plugin "broken" (finetuner-broken 2.5) failed',
        'Plugin "none" (finetuner-none 1.0) refused',
    ]


def test_versions_are_those_of_the_core_the_plugins_and_what_they_ask_for(
    install_plugin: InstallPlugin, tmp_path: Path
) -> None:
    install_plugin("needy", "x = 1", version="2.5")
    (metadata,) = (tmp_path / "site" / "finetuner-needy").glob("*.dist-info/METADATA")
    needs = "Requires-Dist: pytest>=1\nRequires-Dist: surely-not-there[some]; extra == 'x'\n"
    metadata.write_text(metadata.read_text() + needs)
    versions = examine().versions

    assert next(iter(versions)) == "python"
    assert versions["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert versions["finetuner-needy"] == "2.5"
    assert versions["pytest"] == pytest.__version__
    assert {"finetuner-core", "click", "pluggy", "tabulate"} <= set(versions)
    assert "surely-not-there" not in versions


def test_a_heavy_import_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = Plugin("fat", "finetuner-fat", "1.0", import_seconds=1.25, heavy_imports=("sumo", "torch"))
    monkeypatch.setattr(doctor, "catalogue", lambda: Catalogue((heavy,)))
    report = examine()

    assert report.problems == ['Plugin "fat" imports sumo, torch when it is listed, which slows every command.']
    assert report.plugins == [PluginReport("fat", "finetuner-fat 1.0", "loaded", 1250, ("sumo", "torch"), 0, "-")]


@pytest.mark.usefixtures("acme")
def test_the_report_reads_as_text_and_as_json(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", "1 / 0")
    report = examine()

    versions, plugins, problems = report.render().split("\n\n")
    assert versions.splitlines()[0].split()[0] == "python"
    header, _, *rows = plugins.splitlines()
    assert header.split() == ["plugin", "package", "status", "import", "heavy", "imports", "models", "load"]
    assert [row.split()[0] for row in rows] == ["acme", "broken"]
    assert problems == f"Problem: {report.problems[0]}"

    content = json.loads(json.dumps(report.as_json()))
    assert set(content) == {"versions", "plugins", "problems"}
    assert content["versions"] == report.versions
    assert content["problems"] == report.problems
    assert content["plugins"][0]["namespace"] == "acme"
    assert set(content["plugins"][0]) == set(PluginReport.__dataclass_fields__)


@needs_torch
def test_a_model_of_each_plugin_is_built_in_a_process_of_its_own(
    install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(
        "wide",
        "from acme.plugin import ROWS, hookimpl, load_backbone, strip_head\n"
        "@hookimpl\ndef list_backbones():\n    return [ROWS['numbers']]\n",
    )
    install_plugin("empty", "from acme.plugin import find_backbone")
    install_plugin("crashes", loads("import os; os._exit(3)"))
    install_plugin("raises", loads("raise OSError('no disk')"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    report = examine(load=True)

    assert {plugin.namespace: plugin.load for plugin in report.plugins} == {
        "crashes": "failed",
        "empty": "-",
        "raises": "failed",
        "wide": "ok",
    }
    assert report.problems == [
        'Plugin "crashes" cannot build letters: the process ended with code 3',
        'Plugin "raises" cannot build letters: Plugin "raises" (finetuner-raises 1.0) failed in load_backbone: '
        "OSError: no disk Set FINETUNER_STRICT=1 to see where.",
    ]


def test_a_model_that_is_never_built_is_given_up(
    install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("sleepy", loads("while True: pass"))
    monkeypatch.setattr(doctor, "_LOAD_TIMEOUT_SECONDS", 0.01)
    assert examine(load=True).problems == ['Plugin "sleepy" cannot build letters: it took longer than 0.01 s']


@pytest.mark.parametrize(
    ("torch", "torchvision"),
    [
        ("2.8.0", "0.23.0"),
        ("2.8.0+cpu", "0.23.0+cpu"),
        ("2.8.0+cu128", "0.23.0+cu128"),
        ("2.8.0", "0.23.0+cu128"),
        ("2.8.0+cu128", "0.23.0"),
        (None, "0.23.0"),
        ("2.9.0", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("requirement", ["torch==2.8.0", "torch (==2.8.0)", "torch == 2.8.0 ; python_version > '3'"])
def test_a_torchvision_that_fits(
    monkeypatch: pytest.MonkeyPatch, requirement: str, torch: str | None, torchvision: str | None
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy", "torch-other==1.0", requirement, "pillow>=5"])
    assert torchvision_mismatch(torch, torchvision) == ""


@pytest.mark.parametrize(
    ("torch", "torchvision", "why"),
    [
        ("2.9.0", "0.23.0", "torchvision 0.23.0 was built for torch 2.8.0, and torch 2.9.0 is installed"),
        ("2.8.1+cpu", "0.23+cpu", "torchvision 0.23+cpu was built for torch 2.8.0, and torch 2.8.1+cpu is installed"),
        (
            "2.8.0+cpu",
            "0.23.0",
            "torch 2.8.0+cpu and torchvision 0.23.0 are different builds, one for CPUs and one for CUDA",
        ),
        (
            "2.8.0+cu128",
            "0.23.0+cpu",
            "torch 2.8.0+cu128 and torchvision 0.23.0+cpu are different builds, one for CPUs and one for CUDA",
        ),
    ],
)
def test_a_torchvision_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, torch: str, torchvision: str, why: str
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy", "torch-other==1.0", "torch==2.8.0"])
    assert torchvision_mismatch(torch, torchvision) == f"{why}. {CURE}"


@pytest.mark.parametrize("requirements", [None, [], ["torch"]])
def test_a_torchvision_that_asks_for_no_version_is_judged_by_its_build(
    monkeypatch: pytest.MonkeyPatch, requirements: list[str] | None
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: requirements)
    assert torchvision_mismatch("2.9.0", "0.23.0") == ""
    assert "different builds" in torchvision_mismatch("2.9.0+cpu", "0.23.0+cu128")


def test_a_mismatch_is_a_problem_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_versions", lambda _: {"torch": "2.9.0", "torchvision": "0.23.0"})
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch==2.8.0"])
    (problem,) = examine().problems
    assert problem.endswith(CURE)
