from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.beir import Titled, is_beir, read_beir, take
from finetuner_core.data.cells import ArrowCells, Hashed
from finetuner_core.data.dataset import Cells, Column, number
from finetuner_core.data.known import numbered
from finetuner_core.errors import DataError

pytest.importorskip("pyarrow")

CORPUS = [
    {"_id": "d1", "title": "A title", "text": "and a text"},
    {"_id": "d2", "title": "", "text": " only a text\u2028of two lines "},
    {"_id": "d3", "text": "no title", "metadata": {"url": "x"}},
    {"_id": "d4", "title": "only a title", "text": ""},
]
QUERIES = [{"_id": "q1", "text": "who?"}, {"_id": "q2", "text": "what?"}, {"_id": "3", "text": "when?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td3\t2\nq1\td1\t0\n3\td2\t1\n"
TREC = "q1 0 d3 2\nq1 0 d1 0\n3 0 d2 1\n"


def write(
    folder: Path,
    *,
    corpus: str | None = None,
    queries: str | None = None,
    packed: bool = False,
    **qrels: str,
) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows, text in (("corpus", CORPUS, corpus), ("queries", QUERIES, queries)):
        text = "".join(json.dumps(row) + "\n" for row in rows) if text is None else text
        if packed:
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{name}.jsonl").write_text(text, "utf-8")
    for split, text in (qrels or {"test": QRELS}).items():
        (folder / "qrels" / f"{split}.tsv").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "qrels", [QRELS, TREC, QRELS.replace("\n", "\r\n"), QRELS.split("\n", 1)[1], QRELS + "q1\td3\t2\n"]
)
def test_reads_the_layout(tmp_path: Path, packed: bool, qrels: str) -> None:
    folder = write(tmp_path, packed=packed, test=qrels)
    assert is_beir(folder)
    assert is_beir(str(folder / "qrels" / "test.tsv"))
    data = read_beir(folder)
    assert data.source == str(folder / "qrels" / "test.tsv")
    assert list(data.queries.take(range(3))) == ["who?", "what?", "when?"]
    documents = ["A title and a text", "only a text\u2028of two lines", "no title", "only a title"]
    assert list(data.corpus.take(range(4))) == documents
    assert list(data.corpus.take([3, 0])) == [documents[3], documents[0]]
    assert list(data.corpus.select([2, 1]).take([1])) == [documents[1]]
    assert data.corpus.identities.tolist() == [0, 1, 2, 3]
    assert take(data.query_ids or (), range(3)) == ["q1", "q2", "3"]
    assert take(data.corpus_ids or (), range(4)) == ["d1", "d2", "d3", "d4"]
    offsets, judged, grades = data.judgements
    assert (offsets.tolist(), judged.tolist(), grades.tolist()) == ([0, 2, 2, 3], [0, 2, 1], [0, 2, 1])
    assert data.summary() == "2 queries in 4 texts, 2 relevant"
    pairs = data.pairs()
    assert [list(column.take(range(2))) for column in pairs.columns] == [["who?", "when?"], documents[2:0:-1]]


@pytest.mark.parametrize("packed", [True, False])
def test_documents_and_their_identities_are_those_of_a_loop(tmp_path: Path, packed: bool) -> None:
    """Of several blocks, with and without titles, some documents equal whichever of the two fields says what."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for row in range(10_000):
        title, text = (" ".join(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 5, 2))
        rows.append({"_id": f"d{row}", "text": text})
        if row % 3:
            rows[-1]["title"] = title
    corpus = "".join(json.dumps(row) + "\n\n" for row in rows)
    data = read_beir(write(tmp_path, corpus=corpus, packed=packed))
    items = data.corpus.items
    assert isinstance(items, Titled)
    assert isinstance(items, Cells)
    assert isinstance(items, Hashed)
    lazy = (items.titles, items.texts, data.queries.items, data.query_ids, data.corpus_ids)
    assert all(isinstance(cells, ArrowCells) for cells in lazy)
    expected = [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    assert list(items) == items.take(range(len(rows))) == expected
    assert data.corpus.identities.tolist() == number(expected).tolist()
    assert data.corpus.identities.max() < len(rows) / 2
    some = rng.integers(0, len(rows), 500)
    assert list(data.corpus.select(some).take(range(500))) == [expected[row] for row in some]
    assert data.corpus.select(some).identities.tolist() == number([expected[row] for row in some]).tolist()
    # A lazy document and one in a list are the same item.
    both = number([*expected, *expected[::-1]]).tolist()
    columns = (data.corpus, Column("text", "text", expected[::-1]))
    assert np.concatenate(numbered(columns)).tolist() == both


def test_titles_that_are_missing(tmp_path: Path) -> None:
    texts = [" x ", '"title": null', ""]
    rows = [{"_id": f"d{at}", "text": text, "metadata": {"title": None}} for at, text in enumerate(texts, 1)]
    expected = ["x", '"title": null', ""]
    for number_of_titles in range(3):
        lines = [json.dumps(row | ({"title": ""} if at < number_of_titles else {})) for at, row in enumerate(rows)]
        data = read_beir(write(tmp_path, corpus="\n".join(lines)))
        assert list(data.corpus.take(range(3))) == expected
        assert list(data.corpus.select([2, 0]).take([1])) == ["x"]
        assert data.corpus.identities.tolist() == [0, 1, 2]


def test_ids_may_be_whole_numbers(tmp_path: Path) -> None:
    corpus = "".join(json.dumps({"_id": row, "text": "x"}) + "\n" for row in (7, -1, 10))
    data = read_beir(write(tmp_path, corpus=corpus, test="q1\t10\t1\n3\t7\t2\nq1\t-1\t0\n"))
    assert take(data.corpus_ids or (), range(3)) == ["7", "-1", "10"]
    assert [part.tolist() for part in data.judgements] == [[0, 2, 2, 3], [1, 2, 0], [0, 1, 2]]


def test_which_judgements(tmp_path: Path) -> None:
    other = QRELS.replace("\t2\n", "\t3\n")
    folder = write(tmp_path / "one", dev=other)
    assert read_beir(folder).judgements.grades.tolist() == [0, 3, 1]
    folder = write(tmp_path / "two", dev=other, test=QRELS)
    assert read_beir(folder).judgements.grades.tolist() == [0, 2, 1]
    for chosen in (read_beir(folder, "dev"), read_beir(folder / "qrels" / "dev.tsv")):
        assert chosen.judgements.grades.tolist() == [0, 3, 1]
    with pytest.raises(DataError) as caught:
        read_beir(folder, "tset")
    assert str(caught.value) == (
        f'{folder} has no qrels/tset.tsv. Did you mean "test"?\nIt has qrels/dev.tsv, qrels/test.tsv.'
    )
    with pytest.raises(DataError, match=r"has no qrels/test\.tsv\.\nIt has qrels/dev\.tsv, qrels/train\.tsv\."):
        read_beir(write(tmp_path / "three", dev=other, train=QRELS))


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    assert not is_beir(tmp_path)
    assert not is_beir(tmp_path / "gone")
    assert not is_beir(tmp_path / "data.tsv")
    assert not is_beir(tmp_path / ("x" * 1000))
    folder = write(tmp_path / "a")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"a has no queries\.jsonl"):
        read_beir(folder)
    folder = write(tmp_path / "b")
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"b has no judgements: BEIR keeps them in qrels/test\.tsv"):
        read_beir(folder)


ROW = '{"_id": "q1", "text": "x"}\n'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"queries": ""}, "queries.jsonl is empty."),
        ({"queries": ROW + "{"}, "queries.jsonl, line 2 is no JSON at letter 2: "),
        ({"queries": ROW + "[1]\n"}, 'queries.jsonl, line 2 is "[1]", which is no object.'),
        ({"queries": ROW + '{"text": "x"}'}, 'queries.jsonl, line 2: _id is "None"; each line needs one, a text.'),
        ({"queries": ROW + '\n{"_id": true, "text": "x"}'}, 'queries.jsonl, line 3: "_id" is a truth value ("true")'),
        (
            {"queries": '\n{"_id": true, "text": "x"}'},
            'queries.jsonl, line 2: _id is "True"; each line needs one, a text.',
        ),
        ({"queries": '{"_id": 1.5, "text": "x"}'}, 'queries.jsonl, line 1: _id is "1.5"; each line needs one, a text.'),
        ({"queries": '{"_id": 7, "text": "x"}\n' * 2}, 'queries.jsonl, line 2: _id "7" stands on line 1 as well.'),
        ({"queries": ROW + '{"_id": 1, "text": "x"}'}, 'queries.jsonl, line 2: "_id" is a number ("1"), where earlier'),
        ({"queries": ROW + '\n{"_id": "q2"}'}, 'queries.jsonl, line 3: text is "None", not a text.'),
        ({"queries": '{"_id": "q1", "text": [1, 2]}'}, 'queries.jsonl, line 1: text is "'),
        ({"queries": ROW + ROW}, 'queries.jsonl, line 2: _id "q1" stands on line 1 as well.'),
        ({"queries": '{"_id": "q1"}'}, 'queries.jsonl, line 1: text is "None", not a text.'),
        ({"corpus": '{"_id": "d1", "text": 7}'}, 'corpus.jsonl, line 1: text is "7", not a text.'),
        ({"corpus": '{"_id": "d1", "text": "x", "title": null}'}, 'corpus.jsonl, line 1: title is "None", not a text.'),
        ({"test": ""}, "test.tsv holds no judgements."),
        ({"test": "query-id\tcorpus-id\tscore\n"}, "test.tsv holds no judgements."),
        ({"test": QRELS + "q1\td4\n"}, 'test.tsv, line 5: "q1\\td4" has 2 fields.'),
        ({"test": QRELS + "q1\td4\t1.5\n"}, 'test.tsv, line 5: the grade is "1.5"; it must be a whole number.'),
        ({"test": QRELS + "q1\td4\tnan\n"}, 'test.tsv, line 5: the grade is "nan"; it must be a whole number.'),
        (
            {"test": QRELS + "q1\td3\t1\n"},
            'test.tsv, line 5: "q1" and "d3" have the grade 1, and 2 on line 2.\nA pair has one grade: remove a line.',
        ),
        (
            {"test": QRELS + "q1\td5\t1\nq9\td1\t1\nq9\td9\t1\n"},
            'test.tsv, line 5: no line of corpus.jsonl has the _id "d5" (4 ids of 6 lines are unknown).',
        ),
        (
            {"test": QRELS + "q9\td1\t1\n"},
            'test.tsv, line 5: no line of queries.jsonl has the _id "q9" (1 ids of 4 lines are unknown).',
        ),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read_beir(write(tmp_path, **files))  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_files_that_are_no_text_or_cut_short(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 1: the byte 0xff is no UTF-8 text"):
        read_beir(folder)
    folder = write(tmp_path / "b")
    (folder / "qrels" / "test.tsv").write_bytes(b"q1\td\xff\t1\n")
    with pytest.raises(DataError, match=r"test\.tsv is not UTF-8 text"):
        read_beir(folder)
    folder = write(tmp_path / "c", packed=True)
    whole = (folder / "corpus.jsonl.gz").read_bytes()
    for broken in (whole[:-12], b"no gzip", b""):
        (folder / "corpus.jsonl.gz").write_bytes(broken)
        with pytest.raises(DataError, match=r"corpus\.jsonl\.gz (cannot be unpacked|is empty)"):
            read_beir(folder)
