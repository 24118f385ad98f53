"""The rooms of the core stand in an order, and each imports only from itself and from those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetuner_core

CORE = Path(finetuner_core.__file__).parent
CONTRACT = ("values", "errors", "hookspecs", "interfaces", "plugin", "builtin", "untrusted")
# `finetuner_core` is the package itself, whose public names the command line calls.
ORDER = (
    "contract",
    "catalogue",
    "artifacts",
    "data",
    "modeling",
    "encoding",
    "export",
    "losses",
    "evaluation",
    "mining",
    "training",
    "runs",
    "finetuner_core",
    "cli",
    "testing",
)
LIGHT = ("contract", "catalogue", "artifacts", "runs", "finetuner_core", "cli")
MODULES = {".".join(file.relative_to(CORE.parent).with_suffix("").parts): file for file in sorted(CORE.rglob("*.py"))}


def room_of(module: str) -> str:
    """`catalogue` for `finetuner_core.catalogue.names`."""
    _, _, rest = module.removesuffix(".__init__").partition(".")
    part = rest.partition(".")[0] or "finetuner_core"
    return "contract" if part in CONTRACT else part


def imports(node: ast.AST, *, in_functions: bool) -> Iterator[str]:
    """Every module that a piece of source imports when it runs, by its full name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(child.orelse, []), in_functions=in_functions)
        elif in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(child, in_functions=in_functions)


def imports_of(module: str, *, in_functions: bool = True) -> list[str]:
    return list(imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), in_functions=in_functions))


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_rooms_before_it(module: str) -> None:
    room = room_of(module)
    # The core's poolings and losses are a plugin's, which imports what it builds when it builds it.
    for name in imports_of(module, in_functions=module != "finetuner_core.builtin"):
        # `from finetuner_core import fit` asks the package, which comes late; `from finetuner_core import values` not.
        if name.partition(".")[0] in ("finetuner", "finetuner_core"):
            other = room_of(name) if room_of(name) in ORDER else "finetuner_core"
            assert ORDER.index(other) <= ORDER.index(room), f"{module} ({room}) imports {name} ({other})"


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} <= set(ORDER)
    assert {room_of(module) for module in MODULES} >= set(ORDER) - {"testing"}


@pytest.mark.parametrize("module", MODULES)
def test_the_core_knows_no_backbone(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports_of(module)} & {"timm", "transformers", "torchvision"}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if room_of(module) in LIGHT and not module.endswith(".interfaces")]
)
def test_light_rooms_import_nothing_heavy_above_a_function(module: str) -> None:
    heavy = {"torch", "numpy", "safetensors", "tqdm", "PIL"}
    assert not {name.partition(".")[0] for name in imports_of(module, in_functions=False)} & heavy


def test_the_reader_of_imports_sees_what_it_has_to(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import hidden\nelse:\n    import otherwise\n"
        "try:\n    import a.b\nexcept ImportError:\n    from c import d\n"
        "class C:\n    import inside\n    def f(self):\n        from e.f import g\n"
    )
    tree = ast.parse(file.read_text())

    light = ["typing.TYPE_CHECKING", "otherwise", "a.b", "c.d", "inside"]
    assert list(imports(tree, in_functions=False)) == light
    assert list(imports(tree, in_functions=True)) == [*light, "e.f.g"]
    assert room_of("finetuner_core.catalogue.names") == "catalogue"
    assert room_of("finetuner_core.values") == "contract"
    assert room_of("finetuner_core.__init__") == room_of("finetuner_core") == "finetuner_core"
