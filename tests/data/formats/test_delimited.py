"""CSV of any dialect and encoding, packed or not, against what Python's own writer wrote."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuner_core.data.formats import delimited, well_formed
from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError, OptionError

ROWS = [["ä, b", "x;y"], ['say "hi"', "two\nlines"], ["", "猫\ttab"], ["|", " spaces "]]

# What a text file can hold: any letter but the zero byte and halves of letters.
letters = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
no_pressure = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def as_csv(rows: list[list[str]], **dialect: object) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **dialect).writerows(rows)  # type: ignore[arg-type]
    return stream.getvalue()


def cells(table: Table) -> list[list[object]]:
    return [list(row) for row in zip(*table.columns.values(), strict=True)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_whatever_divides_fields_and_lines(delimiter: str, end: str, quoting: int, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    # Python's writer puts no quotes around a newline where lines end otherwise.
    rows = [[text.replace("\n", end) for text in row] for row in ROWS]
    content = as_csv([["text", "label"], *rows], delimiter=delimiter, lineterminator=end, quoting=quoting)
    file.write_bytes(content.encode())
    table = read_table(file)
    assert cells(table) == rows
    assert [*table.columns] == ["text", "label"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_a_file_says_of_its_encoding(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(as_csv([["a", "b"], *ROWS]).encode(encoding))
    assert cells(read_table(file)) == ROWS
    named = read_table(file, "cp1252" if encoding == "utf-16" else "utf-8")
    assert (list(named.columns), cells(named)) == (["a", "b"], ROWS)


def test_what_divides_fields_is_told_by_the_end_of_a_name_alone(tmp_path: Path) -> None:
    (tmp_path / "old.tsv.csv").write_text("a,b\n1,2\n")
    assert [*read_table(tmp_path / "old.tsv.csv").columns] == ["a", "b"]


def test_an_encoding_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("text,label\nGrüße,x\n".encode("cp1252"))
    assert cells(read_table(file, "cp1252")) == [["Grüße", "x"]]
    with pytest.raises(DataError, match=r"a\.csv, line 2: the byte 0xfc is no UTF-8 text\.\nSay how .* --encoding"):
        read_table(file)
    with pytest.raises(OptionError, match='There is no encoding "klingon"'):
        read_table(file, "klingon")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = as_csv([["a", "b"], *ROWS * 50]).encode()
    file = tmp_path / f"a.csv{suffix}"
    file.write_bytes(pack(content))
    assert cells(read_table(file)) == ROWS * 50
    file.write_bytes(pack(content)[:-30])
    with pytest.raises(DataError, match=r"cannot be unpacked: .*\nIt is damaged, or not whole\."):
        read_table(file)
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_table(file)


def test_a_cell_of_ten_megabytes_and_a_batch_that_is_full_of_them(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    large = ["x" * 10_000_000, "y" * 9_000_000, "z"]
    file.write_text(as_csv([["a", "b"], *[[text, str(number)] for number, text in enumerate(large)]]))
    table = read_table(file)
    assert cells(table) == [[text, str(number)] for number, text in enumerate(large)]


def test_where_a_row_of_many_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_ROWS", 3)
    file = tmp_path / "a.csv"
    rows = [[f"{number}\n" * (number % 3), "x"] for number in range(20)]
    file.write_text(as_csv([["a", "b"], *rows], lineterminator="\n"))
    table = read_table(file)
    assert cells(table) == rows
    line = 2
    for row, (text, _) in enumerate(rows):
        assert table.where(row) == f"{file}, line {line}"
        line += 1 + text.count("\n")


def test_one_column_that_holds_what_could_divide(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\none; two\nthree\n")
    assert cells(read_table(file)) == [["one; two"], ["three"]]


@no_pressure
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(letters, min_size=width, max_size=width), min_size=1, max_size=8)
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_all_that_was_written_is_read(rows: list[list[str]], encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    header = [f"column {number}" for number in range(len(rows[0]))]
    content = as_csv([header, *rows], quoting=csv.QUOTE_ALL)
    file.write_bytes(content.encode(encoding))
    assert cells(read_table(file)) == rows


@no_pressure
@given(content=st.one_of(st.binary(max_size=60), st.text('ab,;"\n\r\t\0\\|é', max_size=40).map(str.encode)))
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.csv.gz"])
def test_whatever_a_file_holds_it_is_read_or_refused_in_words(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    try:
        table = read_table(file)
    except DataError as error:
        words = str(error)
    else:
        assert len(table) == len(cells(table)) > 0
        words = table.where(len(table) - 1)
    assert str(file) in words
    assert len(words.splitlines()) <= 2


def slowly(file: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Row by row, with Python's own reader."""
    with monkeypatch.context() as patch:
        patch.setattr(delimited, "read_well_formed", lambda *arguments: None)
        return read_table(file)


@no_pressure
@given(
    content=st.one_of(
        st.text(st.sampled_from('a,"\n;é '), max_size=30),
        st.lists(
            st.sampled_from(["a", ",", '"', '""', '"x"', '"x,\n"', "\n", "\r\n", "\r", " ", "é"]), max_size=20
        ).map("".join),
    )
)
def test_quickly_or_row_by_row_a_file_is_the_same(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(f"a,b\n{content}".encode())

    def read(table: Callable[[], Table]) -> object:
        try:
            return cells(table())
        except DataError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        assert read(lambda: read_table(file)) == read(lambda: slowly(file, patch))


def test_what_is_well_formed_is_read_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(well_formed, "_BLOCK", 40)
    rows = [["x" * (number % 7), f'say "{number}"\n, é'] for number in range(200)]
    header = ["a", "b"]
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbf" + as_csv([header, *rows]).encode())
    table = well_formed.read_well_formed(file, header, ",")
    assert table is not None
    assert [list(row.values()) for row in table.to_pylist()] == rows
    for broken in ('a,b\nx,y"z"\n', 'a,b\n"x"y,z\n', 'a,b\n"x,y\n', "a,b\nx\ry,z\n", "a,b\nx,y\0\n"):
        file.write_text(broken, newline="")
        assert well_formed.read_well_formed(file, header, ",") is None
