"""Examines an installation: versions, every plugin's state, and the mistakes that people meet."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires

from tabulate import tabulate

from finetuner_core.catalogue.discovery import BUILTIN_NAMESPACE, Plugin
from finetuner_core.catalogue.registry import catalogue
from finetuner_core.values import Option, OptionValue

_LOAD_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class PluginReport:
    """What was found of one plugin.

    Args:
        namespace: its name.
        distribution: its package, with version.
        status: `loaded`, `failed`, `refused` or `disabled`.
        import_ms: how long its import took, in milliseconds.
        heavy_imports: large packages that its import brought in, which a light plugin does not.
        models: how many it lists.
        load: with `--load`, whether a model could be built: `ok` or `failed`.
    """

    namespace: str
    distribution: str
    status: str
    import_ms: int
    heavy_imports: tuple[str, ...]
    models: int
    load: str


@dataclass(frozen=True)
class Report:
    """What was found of an installation.

    Args:
        versions: of Python, the core, and the packages that core and plugins ask for.
        plugins: one for each plugin.
        problems: what is wrong, each with what to do.
    """

    versions: dict[str, str]
    plugins: list[PluginReport]
    problems: list[str]

    def as_json(self) -> dict[str, object]:
        """The report as `finetuner doctor --json` gives it."""
        return asdict(self)

    def render(self) -> str:
        """The report as a person reads it."""
        rows = [
            (
                p.namespace,
                p.distribution,
                p.status,
                f"{p.import_ms} ms",
                ", ".join(p.heavy_imports) or "-",
                p.models,
                p.load,
            )
            for p in self.plugins
        ]
        headers = ("plugin", "package", "status", "import", "heavy imports", "models", "load")
        parts = [
            tabulate(self.versions.items(), tablefmt="plain", disable_numparse=True),
            tabulate(rows, headers, disable_numparse=True) if rows else "No plugin is installed.",
            "\n".join(f"Problem: {problem}" for problem in self.problems) or "No problem found.",
        ]
        return "\n\n".join(parts)


def examine(*, load: bool = False) -> Report:
    """Examines the installation.

    Args:
        load: whether to build the first model of each plugin as well, with random weights, in a process of its own.
    """
    plugins: list[PluginReport] = []
    problems = list(catalogue().problems)
    for plugin in catalogue().plugins:
        if plugin.namespace == BUILTIN_NAMESPACE:
            continue
        outcome = "-"
        if load and plugin.backbones:
            failure = _why_not_loaded(plugin)
            outcome = "failed" if failure else "ok"
            if failure:
                problems.append(f'Plugin "{plugin.namespace}" cannot build {plugin.backbones[0].name}: {failure}')
        if plugin.heavy_imports:
            heavy = ", ".join(plugin.heavy_imports)
            problems.append(
                f'Plugin "{plugin.namespace}" imports {heavy} when it is listed, which slows every command.'
            )
        plugins.append(
            PluginReport(
                plugin.namespace,
                f"{plugin.distribution} {plugin.version}",
                plugin.status,
                round(plugin.import_seconds * 1000),
                plugin.heavy_imports,
                len(plugin.backbones),
                outcome,
            )
        )
    versions = _versions([plugin.distribution for plugin in catalogue().plugins])
    if mismatch := torchvision_mismatch(versions.get("torch"), versions.get("torchvision")):
        problems.append(mismatch)
    return Report(versions, plugins, problems)


def torchvision_mismatch(torch: str | None, torchvision: str | None) -> str:
    """Why an installed torchvision cannot work with the installed torch, and what to do; empty where it can.

    torchvision's operators are compiled against one torch. Where the version or the build (for CPUs, or for
    CUDA) differs, its import ends in `operator torchvision::nms does not exist`.

    Args:
        torch: version of the installed torch, `None` where there is none.
        torchvision: version of the installed torchvision.
    """
    if torch is None or torchvision is None:
        return ""
    needs = next((r for r in requires("torchvision") or () if re.match(r"torch\b(?![-_])", r)), "")
    wanted = re.search(r"==\s*([\w.]+)", needs)
    version, _, build = torch.partition("+")
    _, _, vision_build = torchvision.partition("+")
    if wanted and wanted[1] != version:
        why = f"torchvision {torchvision} was built for torch {wanted[1]}, and torch {torch} is installed"
    elif (build == "cpu") != (vision_build == "cpu"):
        why = f"torch {torch} and torchvision {torchvision} are different builds, one for CPUs and one for CUDA"
    else:
        return ""
    return f"{why}. Install a matching pair: pip install --upgrade --force-reinstall torch torchvision"


def _versions(distributions: list[str]) -> dict[str, str]:
    """Versions of Python, of the plugins' packages, and of all that they ask for and that is installed."""
    names = set(distributions)
    for name in distributions:
        try:
            names.update(re.split(r"[^\w.-]", requirement)[0] for requirement in requires(name) or ())
        except PackageNotFoundError:
            continue
    versions = {"python": f"{platform.python_version()} ({platform.system()} {platform.machine()})"}
    for name in sorted(names):
        try:
            versions[name] = distribution(name).version
        except PackageNotFoundError:
            continue
    return versions


def _some_value(option: Option) -> OptionValue:
    """A value that an option allows, whichever."""
    number = max(1, int(option.minimum or 1))
    values: dict[str, OptionValue] = {
        "int": number,
        "float": float(number),
        "str": "",
        "bool": False,
        "ints": (number,),
    }
    return option.choices[0] if option.choices else values[option.type]


def _why_not_loaded(plugin: Plugin) -> str:
    """Builds the plugin's first model in another process, so that a crash is told; empty if it works."""
    row = plugin.backbones[0]
    options = {option.name: _some_value(option) for option in row.options if option.required}
    code = (
        "import json, sys\n"
        "from finetuner_core.errors import FinetunerError\n"
        "from finetuner_core.modeling.build import build_model\n"
        "try:\n"
        "    build_model(sys.argv[1], pretrained=False, **json.loads(sys.argv[2]))\n"
        "except FinetunerError as error:\n"
        "    sys.exit(' '.join(str(error).split()))\n"
    )
    command = [sys.executable, "-c", code, row.full_name, json.dumps(options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOAD_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"it took longer than {_LOAD_TIMEOUT_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {done.returncode}"
