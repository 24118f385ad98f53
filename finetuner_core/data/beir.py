"""Reads a search set in the layout of BEIR: a corpus, queries, and judgements for each split.

A folder with `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels/test.tsv` (query-id,
corpus-id, score); Thakur et al. 2021, https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Judgements as
trec_eval reads them (query, iteration, document, grade, without a header) are taken as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard, cast

import numpy as np

from finetuner_core.data.cells import ArrowCells, number_hashes
from finetuner_core.data.dataset import Cells, Column
from finetuner_core.data.formats.text import open_text
from finetuner_core.data.search_set import Judgements, SearchSet
from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError
from finetuner_core.values import near, quote

Texts: TypeAlias = ArrowCells | Sequence[Any]

# How a title looks that is null; other things may look so too.
_NULL = re.compile(r'"title"\s*:\s*null')


def is_beir(data: object) -> TypeGuard[str | Path]:
    """Whether something is the path of a folder of that layout, or of judgements in one."""
    if not isinstance(data, str | Path):
        return False
    path = Path(data)
    folder = path.parent.parent if _is_qrels(path) else path
    try:
        return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
    except OSError:
        # Whoever reads it as something else says that it cannot be read.
        return False


def read_beir(path: str | Path, split: str | None = None) -> SearchSet:
    """Reads a search set.

    Args:
        path: the folder, or the judgements of one split in it (`qrels/dev.tsv`).
        split: which judgements; where neither says, `test`, or the only ones that there are.

    Returns:
        The whole corpus and all queries, mapped into memory; those that the split does not judge have no judgements. A
        document is its title, a space and its text.

    Raises:
        DataError: if a file is not there or not what it should be, or if the judgements name an id that nothing has,
            grade one pair twice and differently, or have a grade that is no whole number.
    """
    path = Path(path)
    qrels = path if _is_qrels(path) else _find_qrels(path, split)
    folder = qrels.parent.parent
    queries, corpus = (read_table(_existing(folder, name)) for name in ("queries", "corpus"))
    query_ids, corpus_ids = _read_ids(queries), _read_ids(corpus)
    return SearchSet(
        Column("query", "text", _read_texts(queries, "text")),
        Column("document", "text", Titled(_read_texts(corpus, "title"), _read_texts(corpus, "text"))),
        _read_qrels(qrels, query_ids, corpus_ids),
        query_ids,
        corpus_ids,
        source=str(qrels),
    )


@dataclass(frozen=True)
class Titled:
    """Documents as BEIR makes them: title, space and text, without blanks at either end.

    Args:
        titles: the title of each, None where it has none.
        texts: the text of each.
    """

    titles: Texts
    texts: Texts

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        return map(_document, self.titles, self.texts)

    def take(self, rows: Any) -> list[object]:
        """The documents of some rows."""
        titles, texts = (take(cells, rows) for cells in (self.titles, self.texts))
        return [*map(_document, titles, texts)]

    def select(self, rows: Any) -> Titled:
        """The same for many rows."""
        return Titled(_select(self.titles, rows), _select(self.texts, rows))

    def hashes(self) -> np.ndarray:
        """The hash of each document, int64 (N,). Computed once."""
        return self._hashes

    def identities(self) -> np.ndarray:
        """A number for each document, int64 (N,), equal where they are, in the order of first appearance."""
        return number_hashes(self._hashes).astype(np.int64)

    @cached_property
    def _hashes(self) -> np.ndarray:
        return np.fromiter(map(hash, self), np.int64, len(self))


def _document(title: str | None, text: str) -> str:
    return f"{title or ''} {text}".strip()


def take(cells: Cells | Sequence[str], rows: Any) -> list[Any]:
    """Some of a column's cells, lazy or not."""
    return cells.take(rows) if isinstance(cells, Cells) else [cells[row] for row in rows]


def _select(cells: Texts, rows: Any) -> Texts:
    return cells.select(rows) if isinstance(cells, ArrowCells) else [cells[row] for row in rows]


def _is_qrels(path: Path) -> bool:
    return path.suffix == ".tsv" and path.parent.name == "qrels"


def _find_qrels(folder: Path, split: str | None) -> Path:
    splits = {file.stem: file for file in sorted(folder.glob("qrels/*.tsv"))}
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if (split or "test") in splits:
        return splits[split or "test"]
    if not splits:
        raise DataError(f"{folder} has no judgements: BEIR keeps them in qrels/test.tsv.")
    what = f"qrels/{split or 'test'}.tsv"
    raise DataError(
        f"{folder} has no {what}.{near(split or 'test', splits)}\n"
        f"It has {', '.join(f'qrels/{each}.tsv' for each in splits)}."
    )


def _existing(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if file.is_file():
            return file
    raise DataError(
        f"{folder} has no {name}.jsonl.\nThe layout of BEIR is corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )


def _column(table: Table, name: str) -> Texts:
    return cast("Texts", table.columns.get(name, [None] * len(table)))


def _read_ids(table: Table) -> Texts:
    """The ids of a file: texts, or whole numbers that stand for them."""
    cells = _column(table, "_id")
    for row, own in enumerate(cells):
        if not isinstance(own, str | int) or isinstance(own, bool):
            raise DataError(f"{table.where(row)}: _id is {quote(own)}; each line needs one, a text.")
    ids = cells if isinstance(cells[0], str) else [str(own) for own in cells]
    numbers = Column("_id", "text", ids).identities
    # Until one repeats, each id has the number of its row.
    repeated = np.flatnonzero(numbers != np.arange(len(numbers)))
    if len(repeated):
        row = int(repeated[0])
        first = table.where(int(numbers[row])).removeprefix(f"{table.source}, ")
        raise DataError(f"{table.where(row)}: _id {quote(ids[row])} stands on {first} as well.")
    return ids


def _read_texts(table: Table, name: str) -> Texts:
    """The texts of a field; of titles those that are missing are None."""
    cells, some_missing = _column(table, name), False
    for row, cell in enumerate(cells):
        if cell is None and name == "title":
            some_missing = True
        elif not isinstance(cell, str):
            raise DataError(f"{table.where(row)}: {name} is {quote(cell)}, not a text.")
    if some_missing:
        _refuse_null_titles(table.source)
    return cells


def _refuse_null_titles(file: Path) -> None:
    # In a table what is null and what is missing are the same.
    with open_text(file) as lines:
        for line, text in enumerate(lines, 1):
            if _NULL.search(text) and json.loads(text).get("title", "") is None:
                raise DataError(f'{file}, line {line}: title is "None", not a text.')


def _read_qrels(file: Path, query_ids: Texts, corpus_ids: Texts) -> Judgements:
    judged, queries, documents = 0, set(), set()
    for _, query, document, _ in _qrels_lines(file):
        judged += 1
        queries.add(query)
        documents.add(document)
    rows = _rows_of(query_ids, queries), _rows_of(corpus_ids, documents)
    grades: dict[tuple[int, int], tuple[int, int]] = {}
    unknown: list[str] = []
    for line, query, document, grade in _qrels_lines(file):
        for what, own, known in zip(("queries", "corpus"), (query, document), rows, strict=True):
            if own not in known:
                unknown.append(f"line {line}: no line of {what}.jsonl has the _id {quote(own)}")
        if query not in rows[0] or document not in rows[1]:
            continue
        pair = rows[0][query], rows[1][document]
        before, value = grades.setdefault(pair, (line, grade))
        if value != grade:
            raise DataError(
                f"{file}, line {line}: {quote(query)} and {quote(document)} have the grade {grade}, and {value} on "
                f"line {before}.\nA pair has one grade: remove a line."
            )
    if unknown:
        raise DataError(f"{file}, {unknown[0]} ({len(unknown):,} ids of {judged:,} lines are unknown).")
    if not grades:
        raise DataError(f"{file} holds no judgements.")
    pairs = np.array(list(grades), np.int64)
    values = np.array([grade for _, grade in grades.values()], np.int64)
    return Judgements.of_triples(pairs[:, 0], pairs[:, 1], values, len(query_ids))


def _rows_of(ids: Texts, wanted: Collection[str]) -> dict[str, int]:
    """Where the ids stand that are wanted."""
    return {own: row for row, own in enumerate(ids) if own in wanted}


def _qrels_lines(file: Path) -> Iterator[tuple[int, str, str, int]]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for line, text in enumerate(stream, 1):
                fields = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
                if not fields:
                    continue
                if len(fields) not in (3, 4):
                    raise DataError(
                        f"{file}, line {line}: {quote(text.rstrip())} has {len(fields)} fields.\n"
                        "A line has a query, a document and a grade, with tabs between them."
                    )
                grade = fields[-1].strip()
                if line == 1 and len(fields) == 3 and fields[0] in ("query-id", "query_id", "qid"):
                    continue
                if not grade.lstrip("+-").isdecimal():
                    raise DataError(f"{file}, line {line}: the grade is {quote(grade)}; it must be a whole number.")
                yield line, fields[0], fields[-2], int(grade)
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8 text.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
