"""Writes `hooks.md` from the docstrings of the contract: `python docs/hook_reference.py`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetuner_core import hookspecs

CORE = Path(hookspecs.__file__).parent
PAGE = Path(__file__).with_name("hooks.md")
VALUES = ("BackboneInfo", "Option", "PoolingInfo", "LossInfo")
INTERFACES = (
    "LoadedBackbone",
    "ForeignUse",
    "Preprocess",
    "TextPreprocess",
    "ImagePreprocess",
    "PortablePreprocess",
    "Features",
    "FeatureExtractor",
    "Stage",
    "Pooling",
    "CrossEncoder",
)
_SECTION = re.compile(r"^(Args|Returns|Raises):$")
_ENTRY = re.compile(r"^(\w+): (.*)")

Definition = ast.FunctionDef | ast.ClassDef


def render() -> str:
    """The page as the docstrings are now."""
    hooks = list(_definitions("hookspecs"))
    parts = [
        "<!-- Written by `python docs/hook_reference.py` from the docstrings of finetuner_core/hookspecs.py, "
        "values.py and interfaces.py. Do not edit it: run that again. -->\n<!-- fmt: off -->\n\n# Hook reference",
        *_prose(hookspecs.__doc__ or "").split("\n\n")[1:],
        "\n".join(f"* [`{hook.name}`](#{hook.name})" for hook in hooks),
        "## Hooks",
        *(_function(hook) for hook in hooks),
        "## Values\n\nWhat hooks give and are given, of `finetuner_core.values`. It is light, and all of these are in "
        "`finetuner_core.plugin` too.",
        *_classes("values", VALUES),
        "## Interfaces\n\nWhat a loaded network has to offer, of `finetuner_core.interfaces`, which imports torch.",
        *_classes("interfaces", INTERFACES),
    ]
    return "\n\n".join(parts) + "\n"


def _definitions(module: str) -> Iterator[Definition]:
    tree = ast.parse((CORE / f"{module}.py").read_text("utf-8"))
    return (node for node in tree.body if isinstance(node, Definition))


def _function(hook: Definition) -> str:
    assert isinstance(hook, ast.FunctionDef)
    return f"### `{hook.name}`\n\n{_code(_signature(hook))}\n\n{_prose(_docstring(hook))}"


def _classes(module: str, names: Sequence[str]) -> Iterator[str]:
    found = {node.name: node for node in _definitions(module)}
    for name in names:
        node = found[name]
        assert isinstance(node, ast.ClassDef)
        yield "\n\n".join([f"### `{name}`", _code(_fields(module, node)), _prose(_docstring(node)), *_members(node)])


def _fields(module: str, node: ast.ClassDef) -> str:
    """The class with its fields, as it stands in the source, without docstrings and methods."""
    bases = ", ".join(map(ast.unparse, node.bases))
    source = (CORE / f"{module}.py").read_text("utf-8")
    fields = [ast.get_source_segment(source, item) or "" for item in node.body if isinstance(item, ast.AnnAssign)]
    head = f"class {node.name}{f'({bases})' if bases else ''}:"
    return "\n    ".join([head, *fields]) if fields else f"{head} ..."


def _members(node: ast.ClassDef) -> Iterator[str]:
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            yield f"#### `{node.name}.{item.name}`\n\n{_code(_signature(item))}\n\n{_prose(_docstring(item))}"
        elif isinstance(item, ast.AnnAssign) and isinstance(following, ast.Expr):
            text = following.value
            assert isinstance(text, ast.Constant)
            yield f"* `{ast.unparse(item.target)}`: {_joined(inspect.cleandoc(str(text.value)))}"


def _signature(function: ast.FunctionDef) -> str:
    kept = [name for name in map(ast.unparse, function.decorator_list) if name in ("property", "staticmethod")]
    line = f"def {function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns or ast.Constant(None))}"
    return "\n".join([*(f"@{name}" for name in kept), line])


def _docstring(node: Definition) -> str:
    return ast.get_docstring(node) or ""


def _code(text: str, language: str = "py") -> str:
    return f"```{language}\n{text}\n```"


def _joined(text: str) -> str:
    return " ".join(text.split())


def _prose(docstring: str) -> str:
    """A Google-style docstring as Markdown: sections as lists, examples as code."""
    parts: list[str] = []
    for block in re.split(r"\n\n(?!    )", inspect.cleandoc(docstring)):
        heading, _, rest = block.partition("\n")
        if _SECTION.match(heading):
            parts.append(f"**{heading.removesuffix(':')}**\n\n{_entries(rest)}")
        elif heading.startswith(">>>"):
            parts.append(_code(block, "pycon"))
        else:
            parts.append(block)
    return "\n\n".join(parts)


def _entries(section: str) -> str:
    """What stands under `Args:` and its like: an item for each name, or a plain text."""
    lines: list[str] = []
    for line in inspect.cleandoc(section).splitlines():
        entry = _ENTRY.match(line)
        if entry:
            lines.append(f"* `{entry[1]}`: {entry[2]}")
        elif lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
