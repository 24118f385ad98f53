"""What Arrow reads of JSON Lines against what is read line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetuner_core.data.formats import jsonl
from finetuner_core.data.formats.plain_json import read_plain
from finetuner_core.errors import DataError

SCHEMA = pa.schema({"a": pa.string(), "n": pa.int64(), "x": pa.float64(), "v": pa.list_(pa.float64())})
WHOLE = '{"a": "ä\\u0000\\n", "n": 3, "x": 2, "v": [1, 2.5]}\n{}\r\n\n{"x": null, "a": null, "v": [null]}'

# What damage is done with: what JSON is made of, and what it must not hold.
PIECES = [
    "",
    "null",
    "\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    "NaN",
    "1e999",
    "9" * 20,
    " ",
    "\0",
    "\\ud800",
]

lines = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "a": st.none() | st.text(max_size=5),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "v": st.none() | st.lists(st.none() | st.floats(-10, 10), max_size=3),
        },
    ),
    min_size=1,
    max_size=5,
)

# Where, what is put there, and how much is taken away for it.
damages = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(PIECES), st.integers(0, 2)), max_size=2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines, st.booleans(), st.lists(st.tuples(st.floats(0, 1), st.sampled_from(PIECES), st.integers(0, 2)), max_size=2)
)
@example([{"a": "x"}], False, [(0.0, "null\n", 0)])
def test_both_ways_end_alike(
    tmp_path: Path, rows: list[dict[str, Any]], ascii_only: bool, damage: list[tuple[float, str, int]]
) -> None:
    content = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    for place, piece, length in damage:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + length :]
    file = tmp_path / "a.jsonl"
    file.write_bytes(content.encode())

    def outcome() -> object:
        try:
            columns: dict[str, Any] = {**jsonl.read(file).columns}
        except DataError as error:
            return str(error)
        return {
            name: [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]
            for name, cells in columns.items()
        }

    usual = outcome()
    with mock.patch.object(jsonl, "read_plain", return_value=None):
        assert outcome() == usual


def test_what_is_plain(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(WHOLE.encode())
    table = read_plain(file, SCHEMA)
    assert table is not None
    assert table.schema == SCHEMA
    empty = dict.fromkeys(SCHEMA.names)
    assert table.to_pylist() == [empty | json.loads(line) for line in WHOLE.split("\n") if line.strip()]


@pytest.mark.parametrize(
    "content",
    [
        "null",
        '{"a": "x"}\nnull',
        ' {"a": "x"}',
        '{"a": "x"}{"a": "y"}',
        '{"a":\n"x"}',
        '{"a": "x"}\r{"a": "y"}',
        '{"x": NaN}',
        '{"x": Infinity}',
        '{"x": 9007199254740993}',
        '{"v": [NaN]}',
        '{"n": 1.0}',
        '{"n": true}',
        '{"a": 1}',
        '{"b": 1}',
        '{"a": "x", "a": "y"}',
        '{"a": "\0"}',
        '{"a": "\udcff"}',
        '{"a": ' + "[" * 100_000 + "}",
        '{"b": ' + "[" * 100_000 + "}",
    ],
)
def test_what_is_not(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content.encode(errors="surrogateescape"))
    assert read_plain(file, SCHEMA) is None


def test_types_that_are_not_known(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": null}')
    for kind in (pa.null(), pa.struct([("json", pa.string())]), pa.list_(pa.list_(pa.int64()))):
        assert read_plain(file, pa.schema({"a": kind})) is None
