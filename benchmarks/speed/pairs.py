"""Pairs of texts that every machine has: what is documented in the Python sources that are installed.

A pair is what one would look for (a name with its parameters, and the first sentence of its documentation) and what one
would find (the rest of the documentation, or that sentence where there is no more). The lengths spread as those of real
texts do: most are short and a few are very long. No text stands in two pairs.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

LIBRARIES = ("torch", "transformers")
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


class Pair(NamedTuple):
    """What is looked for, and what is to be found."""

    anchor: str
    positive: str


def mine(count: int, folders: Iterable[Path] | None = None) -> list[Pair]:
    """The first so many pairs, the files in an order that looks random and is always the same.

    Args:
        count: how many.
        folders: where the sources are; else the standard library, torch and transformers.

    Raises:
        ValueError: if there are fewer.
    """
    return _first(count, documented(sources() if folders is None else folders))


def equal(count: int, words: int, folders: Iterable[Path] | None = None) -> list[Pair]:
    """Pairs of two parts of one long documentation, each of at least so many words.

    A word is a token at least, so that every text has the length at which both sides are told to cut.
    """
    return _first(count, _halves(sources() if folders is None else folders, words))


def brief(count: int, words: int, folders: Iterable[Path] | None = None) -> list[Pair]:
    """Pairs of texts of at most so many words."""

    def cut() -> Iterator[Pair]:
        for anchor, positive in documented(sources() if folders is None else folders):
            yield Pair(" ".join(anchor.split()[:words]), " ".join(positive.split()[:words]))

    return _first(count, cut())


def read(path: Path) -> list[Pair]:
    """The pairs of a CSV file: its first two columns, below a header. No text stands in two."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    pairs = (Pair(*row[:2]) for row in rows if len(row) > 1 and all(row[:2]))
    return list(_distinct(pairs))


def sources() -> list[Path]:
    """The folders of the standard library and of the libraries that are installed."""
    specs = [importlib.util.find_spec(name) for name in LIBRARIES]
    return [
        Path(sysconfig.get_path("stdlib")),
        *(Path(spec.submodule_search_locations[0]) for spec in specs if spec and spec.submodule_search_locations),
    ]


def documented(folders: Iterable[Path]) -> Iterator[Pair]:
    """A pair for everything that is documented in three words or more."""
    for signature, text in docstrings(folders):
        first, *rest = _SENTENCE.split(text, maxsplit=1)
        head, body = " ".join(first.split()), " ".join(rest[0].split()) if rest else ""
        if len(body.split()) >= 3:
            yield Pair(f"{signature}: {head}", body)
        elif len(head.split()) >= 3:
            yield Pair(signature, head)


def docstrings(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Every function and class with documentation: its name and parameters, and the documentation."""
    files = [(folder.name, file.relative_to(folder)) for folder in folders for file in folder.rglob("*.py")]
    roots = {folder.name: folder for folder in folders}
    kept = [(root, file) for root, file in files if not _LEFT_OUT & set(file.parts)]
    for root, file in sorted(kept, key=lambda own: hashlib.sha256(own[1].as_posix().encode()).digest()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in other people's strings
                tree = ast.parse((roots[root] / file).read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
                text := ast.get_docstring(node)
            ):
                yield _signature(node), text


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return f"{node.name}({', '.join(name for name in names if name not in ('self', 'cls'))})"


def _halves(folders: Iterable[Path], words: int) -> Iterator[Pair]:
    for _, text in docstrings(folders):
        all_words = text.split()
        if len(all_words) >= 2 * words:
            yield Pair(" ".join(all_words[:words]), " ".join(all_words[words : 2 * words]))


def _first(count: int, pairs: Iterable[Pair]) -> list[Pair]:
    found = list(islice(_distinct(pairs), count))
    if len(found) < count:
        raise ValueError(f"{count:,} pairs are wanted, and there are {len(found):,}. Install more, or want fewer.")
    return found


def _distinct(pairs: Iterable[Pair]) -> Iterator[Pair]:
    seen: set[str] = set()
    for pair in pairs:
        if pair.anchor not in seen and pair.positive not in seen and pair.anchor != pair.positive:
            seen.update(pair)
            yield pair
