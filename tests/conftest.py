"""What all tests of the core share: a toy plugin, and a way to install plugins of any kind."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from finetuner_core.catalogue import discovery
from finetuner_core.catalogue.registry import catalogue

HAS_TORCH = importlib.util.find_spec("torch") is not None
OWN_NAMESPACES = ("mlp", "timm", "hf", "openclip", "metric-learning")
OWN_PLUGINS = {f"finetuner-{name}" for name in OWN_NAMESPACES}

# The catalogue and the contract have to work without torch, and are tested without it as well. The other rooms compute.
COMPUTING = (
    *("modeling", "encoding", "losses", "training", "evaluation", "mining", "artifacts", "export", "security"),
    "testing/computing",
)
TENSORS = ("data/test_augment.py", "data/test_pixels.py")
collect_ignore_glob = [] if HAS_TORCH else [*(f"{room}/*" for room in COMPUTING), *TENSORS]

InstallPlugin = Callable[..., None]


def pytest_report_header() -> str:
    return "torch: " + ("installed" if HAS_TORCH else f"not installed, not collected: {', '.join(collect_ignore_glob)}")


@pytest.fixture(autouse=True)
def _no_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The core's tests see the plugins that they install themselves, whatever the environment holds."""
    real = discovery._entries

    def without_own() -> Iterator[EntryPoint]:
        return (entry for entry in real() if entry.dist is None or entry.dist.metadata["Name"] not in OWN_PLUGINS)

    monkeypatch.setattr(discovery, "_entries", without_own)
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallPlugin]:
    """Installs a plugin as pip would: a package's metadata with an entry point, and a module.

    `install_plugin(namespace, source, distribution=..., version=..., group=..., target=...)`: `source` is the module's
    text; without it, `target` names a module that is there already.
    """
    modules: list[str] = []

    def install(
        namespace: str,
        source: str | None = None,
        *,
        distribution: str | None = None,
        version: str = "1.0",
        group: str = discovery.GROUP,
        target: str | None = None,
    ) -> None:
        distribution = distribution or f"finetuner-{namespace}"
        site = tmp_path / "site" / distribution
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        module = target or f"plugin_{distribution.replace('-', '_')}"
        if source is not None:
            (site / f"{module}.py").write_text(dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{namespace} = {module}\n")
        modules.append(module)
        monkeypatch.syspath_prepend(str(site))
        catalogue.cache_clear()

    yield install
    for module in modules:
        if not module.startswith("acme"):
            sys.modules.pop(module, None)


@pytest.fixture
def acme(install_plugin: InstallPlugin) -> None:
    """The toy plugin of `tests/support/acme`: one small backbone for each task."""
    install_plugin("acme", target="acme.plugin")
