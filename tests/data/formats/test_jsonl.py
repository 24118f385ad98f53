"""JSON Lines against Python's own `json`, which writes and reads the same."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetuner_core.data.formats import jsonl
from finetuner_core.errors import DataError

Write = Callable[[str | bytes], Path]

no_pressure = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
letters = st.text(st.characters(codec="utf-8"), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
# What one column may hold, beside nothing.
KINDS = [letters, st.integers(-(2**63), 2**63 - 1), floats, st.booleans(), st.lists(letters), st.lists(floats)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes) -> Path:
        file = tmp_path / "a.jsonl"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


def rows_of(file: Path, encoding: str | None = None) -> list[dict[str, Any]]:
    """What a file holds, a vector as a list."""
    columns: dict[str, Any] = {**jsonl.read(file, encoding).columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{key: x.tolist() if isinstance(x, np.ndarray) else x for key, x in row.items()} for row in rows]


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    columns = draw(st.dictionaries(letters, st.sampled_from(KINDS), min_size=1, max_size=4))
    rows = st.fixed_dictionaries({}, optional={name: st.none() | cells for name, cells in columns.items()})
    return draw(st.lists(rows, min_size=1, max_size=20).filter(any))


@no_pressure
@given(tables(), st.booleans(), st.sampled_from(["\n", "\r\n", "\r", "\n\n \n"]))
@example([{"a": 1}, {"a": None}, {"b": "x"}], False, "\n")
@example([{"v": [1.0, 2.0]}, {"v": [3.0, 4.0]}], False, "\n")
def test_the_cells_are_those_that_python_reads(
    write: Write, rows: list[dict[str, Any]], ascii_only: bool, end: str
) -> None:
    file = write(end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows))
    names = list(dict.fromkeys(name for row in rows for name in row))
    assert rows_of(file) == [{name: row.get(name) for name in names} for row in rows]


def test_types_that_show_late(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_LINES", 2)
    rows: list[dict[str, Any]] = [
        {"n": 1, "late": None},
        {"n": 2, "late": None},
        {"n": None, "late": []},
        {"n": 2.5, "late": ["x"], "new": True},
        {"n": 3},
    ]
    read = rows_of(write("\n".join(map(json.dumps, rows))))
    assert read == [{"n": None, "late": None, "new": None} | row for row in rows]
    assert [type(row["n"]) for row in read if row["n"] is not None] == [float] * 4


def test_vectors_are_an_array(write: Write) -> None:
    vectors = np.arange(12, dtype=np.float64).reshape(4, 3)
    file = write("\n".join(json.dumps({"vectors": vector.tolist()}) for vector in vectors))
    read = jsonl.read(file).columns["vectors"]
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, vectors)


def test_objects_are_kept_as_text_that_is_no_item(write: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"meta": {"a": 1}, "many": [{"b": "x"}]},
        {"meta": {"c": ["ä"]}, "many": []},
        {"meta": {}},
    ]
    read = rows_of(write("\n".join(map(json.dumps, rows))))
    assert [json.loads(row["meta"]["json"]) for row in read] == [row["meta"] for row in rows]
    assert read[0]["many"] == [{"json": '{"b": "x"}'}]


def test_ten_megabytes_in_one_cell(write: Write) -> None:
    text = "ä" * 5_000_000
    assert rows_of(write(json.dumps({"text": text}) + '\n{"text": "b"}')) == [{"text": text}, {"text": "b"}]


def test_packed_and_encoded(tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"a": "x"}\n' * 3))
    assert rows_of(packed) == [{"a": "x"}] * 3
    other = tmp_path / "b.jsonl"
    other.write_bytes('{"a": "ü"}'.encode("cp1252"))
    assert rows_of(other, "cp1252") == [{"a": "ü"}]
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: the byte 0xfc is no UTF-8"):
        jsonl.read(other)


def test_the_line_of_a_row(write: Write) -> None:
    table = jsonl.read(write('\n\n{"a": 1}\n  \n{"a": 2}\n{"a": 3}\n\n'))
    assert [table.where(row).split(", ")[1] for row in range(3)] == ["line 3", "line 5", "line 6"]


MIXED = [
    ('{"a": "x"}\n{"a": 3}', r'line 2: "a" is a number \("3"\), where earlier lines hold texts\.'),
    ('{"a": 3}\n\n{"a": "x"}', r'line 3: "a" is a text \("x"\), where earlier lines hold numbers\.'),
    ('{"a": true}\n{"a": 1}', r'line 2: "a" is a number \("1"\), where earlier lines hold truth values\.'),
    ('{"a": 0.5}\n{"a": true}', r'line 2: "a" is a truth value \("true"\), where earlier lines hold numbers\.'),
    ('{"a": [1]}\n{"a": ["x"]}', r'line 2: "a" is a list of texts .* earlier lines hold lists of numbers\.'),
    ('{"a": "x"}\n{"a": {"b": 1}}', r'line 2: "a" is a JSON object .* earlier lines hold texts\.'),
    ('{"a": []}\n{"a": "x"}', r'line 2: "a" is a text \("x"\), where earlier lines hold lists\.'),
    ('{"a": "x"}\n{"a": [1, "x"]}', r'line 2: "a" is the list "\[1, "x"\]" of different things'),
    ('{"a": [[[1]]]}', r'line 1: "a" is the list .* of lists of lists of lists\.'),
    ('{"a": 1}\n{"a": 99999999999999999999}', r'line 2: "a" is "9{20}", a number that is too large'),
    ('{"a": "x"}\n{"a": 99999999999999999999}', r'line 2: "a" is "9{20}", a number that is too large'),
    ('{"a": 9007199254740993}\n{"a": 0.5}', r'line 1: "a" is "9007199254740993", a number that is too large'),
    ('{"a": [9007199254740993]}\n{"a": [0.5]}', r'line 1: "a" is the list "\[9007199254740993\]" .* too large'),
    ('{"a": "\\ud800"}', r'line 1: "a" is "\\ud800", which holds half a letter'),
    ('{"\\ud800": 1}', r'the key "\\ud800" holds half a letter'),
]


@pytest.mark.parametrize(("content", "message"), MIXED)
@pytest.mark.parametrize("lines", [1, 2, 4096])
def test_mixed_cells_are_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, content: str, message: str, lines: int
) -> None:
    monkeypatch.setattr(jsonl, "_LINES", lines)
    if lines == 1 and "9007199254740993" in content:
        message = message.replace("line 1", r"line [12]")
    with pytest.raises(DataError, match=message):
        jsonl.read(write(content))


BROKEN = [
    ("", r"a\.jsonl is empty\."),
    (" \n\n", r"a\.jsonl is empty\."),
    ("{}\n{}", "holds objects without keys"),
    ('{"a": 1}\n[2]', r'line 2 is "\[2\]", which is no object\.\nEach line holds one object'),
    ('{"a": 1}\n\n{"a": 1', r"line 3 is no JSON at letter 8: Expecting ',' delimiter"),
    ("{\n", r"line 1 is no JSON at letter 2: Expecting property name"),
    ('{"a": 1}{"a": 2}', "line 1 is no JSON at letter 9: Extra data"),
    ('\xa0{"a": 1}', "line 1 is no JSON at letter 1: Expecting value"),
    ('{"a": 1} # one', "line 1 is no JSON at letter 9: Extra data"),
    ("{'a': 1}", "line 1 is no JSON at letter 2: Expecting property name enclosed in double quotes"),
    ('{"a": NaN}', "line 1 is no JSON: NaN is no number there, write null"),
    ('{"a": -Infinity}', "line 1 is no JSON: -Infinity is no number there"),
    ('{"a": ' + "[" * 100_000, "line 1 is no JSON: "),
    ('{"a": "\x00"}', "line 1 is no text: it holds zero bytes"),
    ("\n".join(json.dumps({str(number): 1}) for number in range(1001)), "more than 1,000 different keys by line 1001"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_what_is_no_json_is_refused(write: Write, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        jsonl.read(write(content))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda cells: st.lists(cells, max_size=4) | st.dictionaries(st.text(max_size=3), cells, max_size=4),
)


@no_pressure
@given(st.lists(anything | st.fixed_dictionaries({"a": anything}), max_size=8), st.data())
def test_any_values_are_a_table_or_refused(write: Write, values: list[Any], data: st.DataObject) -> None:
    content = "\n".join(map(json.dumps, values)).encode()
    start = data.draw(st.integers(0, len(content)))
    damaged = content[:start] + data.draw(st.binary(max_size=3)) + content[start + data.draw(st.integers(0, 3)) :]
    for whole in (content, damaged):
        message = ""
        try:
            assert rows_of(write(whole))
        except DataError as error:
            message = str(error)
        assert message.count("\n") <= 1
