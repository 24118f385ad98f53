"""Reads a search set in the layout of BEIR: a corpus, queries, and judgements for each split.

A folder with `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels/test.tsv` (query-id,
corpus-id, score); Thakur et al. 2021, https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Judgements as
trec_eval reads them (query, iteration, document, grade, without a header) are taken as well.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from finetuner_core.data.dataset import Cells, Column, number
from finetuner_core.data.search_set import Judgements, SearchSet
from finetuner_core.errors import DataError
from finetuner_core.values import near, quote


def is_beir(path: str | Path) -> bool:
    """Whether a path is a folder of that layout, or judgements in one."""
    path = Path(path)
    folder = path.parent.parent if _is_qrels(path) else path
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def read_beir(path: str | Path, split: str | None = None) -> SearchSet:
    """Reads a search set.

    Args:
        path: the folder, or the judgements of one split in it (`qrels/dev.tsv`).
        split: which judgements; where neither says, `test`, or the only ones that there are.

    Returns:
        The whole corpus and all queries; those that the split does not judge have no judgements. A document is its
        title, a space and its text.

    Raises:
        DataError: if a file is not there or not what it should be, or if the judgements name an id that nothing has,
            grade one pair twice and differently, or have a grade that is no whole number.
    """
    path = Path(path)
    qrels = path if _is_qrels(path) else _find_qrels(path, split)
    folder = qrels.parent.parent
    query_ids, (queries,) = _read(_existing(folder, "queries"), ("text",))
    corpus_ids, (titles, texts) = _read(_existing(folder, "corpus"), ("title", "text"))
    return SearchSet(
        Column("query", "text", queries),
        Column("document", "text", Titled(titles, texts)),
        _read_qrels(qrels, query_ids, corpus_ids),
        query_ids,
        corpus_ids,
        source=str(qrels),
    )


@dataclass(frozen=True)
class Titled:
    """Documents as BEIR makes them: title, space and text, without blanks at either end."""

    titles: Cells | list[str]
    texts: Cells | list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Any) -> list[object]:
        """The documents of some rows."""
        titles, texts = (take(cells, rows) for cells in (self.titles, self.texts))
        return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]

    def select(self, rows: Any) -> Titled:
        """The same for many rows."""
        return Titled(_select(self.titles, rows), _select(self.texts, rows))

    def identities(self) -> np.ndarray:
        """A number for each document, equal where they are."""
        return number(self.take(range(len(self))))


def take(cells: Cells | Sequence[str], rows: Any) -> list[Any]:
    """Some of a column's cells, lazy or not."""
    return cells.take(rows) if isinstance(cells, Cells) else [cells[row] for row in rows]


def _select(cells: Cells | list[str], rows: Any) -> Any:
    return cells.select(rows) if isinstance(cells, Cells) else [cells[row] for row in rows]


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


def _open(file: Path) -> TextIO:
    return gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig")


def _read(file: Path, fields: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """The ids of a file, and the texts of some fields; a title may be missing."""
    ids: dict[str, int] = {}
    columns: list[list[str]] = [[] for _ in fields]
    for line, row in _rows(file):
        own = row.get("_id")
        if not isinstance(own, str | int) or isinstance(own, bool):
            raise DataError(f"{file}, line {line}: _id is {quote(own)}; each line needs one, a text.")
        if str(own) in ids:
            raise DataError(f"{file}, line {line}: _id {quote(own)} stands on line {ids[str(own)]} as well.")
        ids[str(own)] = line
        for name, column in zip(fields, columns, strict=True):
            value = row.get(name, "" if name == "title" else None)
            if not isinstance(value, str):
                raise DataError(f"{file}, line {line}: {name} is {quote(value)}, not a text.")
            column.append(value)
    if not ids:
        raise DataError(f"{file} is empty.")
    return list(ids), columns


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0
    try:
        with _open(file) as stream:
            for line, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise DataError(f"{file}, line {line}: {quote(text.strip())} is no JSON object.")
                yield line, row
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {line} is not JSON: {error.msg} (character {error.pos + 1}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8 text (after line {line}).") from None
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None


def _read_qrels(file: Path, query_ids: list[str], corpus_ids: list[str]) -> Judgements:
    rows = ({own: row for row, own in enumerate(query_ids)}, {own: row for row, own in enumerate(corpus_ids)})
    grades: dict[tuple[int, int], tuple[int, int]] = {}
    unknown: list[str] = []
    judged = 0
    for line, query, document, grade in _qrels_lines(file):
        judged += 1
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


def _qrels_lines(file: Path) -> Iterator[tuple[int, str, str, int]]:
    try:
        with _open(file) as stream:
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
