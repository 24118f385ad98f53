from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


def columns_of(table: Table) -> dict[str, list[object]]:
    return {name: list(cast("Iterable[object]", cells)) for name, cells in table.columns.items()}


class TestDelimited:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "text,label\nhi,greet\nbye,part\n"),
            ("a.CSV", "text,label\nhi,greet\nbye,part"),
            ("a.tsv", "text\tlabel\nhi\tgreet\nbye\tpart\n"),
            ("bom.csv", b"\xef\xbb\xbftext,label\nhi,greet\nbye,part\n"),
            ("crlf.csv", "text,label\r\nhi,greet\r\nbye,part\r\n"),
            ("mac.csv", "text,label\rhi,greet\rbye,part\r"),
            ("spaces.csv", " text , label\nhi,greet\nbye,part\n"),
            ("quoted.csv", '"text","label"\n"hi","greet"\nbye,"part"\n'),
            ("blank.csv", "\n\ntext,label\n\nhi,greet\n\n\nbye,part\n\n"),
        ],
    )
    def test_reads_the_same_table(self, write: Write, name: str, content: str | bytes) -> None:
        assert columns_of(read_table(write(name, content))) == {"text": ["hi", "bye"], "label": ["greet", "part"]}

    def test_cells_are_kept_as_they_stand(self, write: Write) -> None:
        cells = [' a ""quoted"" word ', "a, b", "line\nfeed", "\u2028 separators \x0c\x85\x1e", "", "ä 猫 🐈"]
        content = "text\n" + "".join(f'"{cell}"\n' for cell in cells)
        expected = [cell.replace('""', '"') for cell in cells]
        assert columns_of(read_table(write("a.csv", content))) == {"text": expected}

    def test_a_unicode_line_separator_without_quotes_ends_no_row(self, write: Write) -> None:
        table = read_table(write("a.csv", "text,label\none\u2028two,x\nthree\x0cfour,y\n"))
        assert columns_of(table) == {"text": ["one\u2028two", "three\x0cfour"], "label": ["x", "y"]}

    def test_a_long_field_is_read(self, write: Write) -> None:
        assert columns_of(read_table(write("a.csv", "text\n" + "x" * 200_000)))["text"] == ["x" * 200_000]

    def test_says_on_which_line_a_row_begins(self, write: Write) -> None:
        path = write("a.csv", 'text,label\none,x\n\n"two\nlines\n\nor more",x\nthree,x\n')
        table = read_table(path)
        assert [table.where(row) for row in range(3)] == [f"{path}, line {line}" for line in (2, 4, 8)]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("text,label\na,b\nc\n", "line 3: 1 fields where the header has 2 (text, label)."),
            ("text,label\na,b\nc,d,e\n", "line 3: 3 fields where the header has 2 (text, label)."),
            ('text,label\n"a\nb",c\n\nd\n', "line 5: 1 fields where the header has 2 (text, label)."),
            ('text,label\na,b\n"c,d\ne,f\n', "the row that begins on line 3 is not CSV: unexpected end of data."),
            ('text,label\na,b\n"c,d\ne,"f",g\n', "the row that begins on line 3 is not CSV: ',' expected after '\"'."),
            ("text,label\n", "has a header (text, label) and no rows."),
            ("", "is empty."),
            ("\n \n", "is empty."),
            (b"\xef\xbb\xbf", "is empty."),
            ("text,label,text\na,b,c\n", 'an empty or a repeated name: "text", "label", "text".'),
            ("text,,label\na,b,c\n", 'an empty or a repeated name: "text", "", "label".'),
            ("text,label\na,b\0\n", "line 2 is no text: it holds zero bytes."),
            ("text,label\nä,b\n".encode("latin-1"), "line 2: the byte 0xe4 is no UTF-8 text."),
            ("text,label\na,b\n".encode("utf-16-le"), "zero bytes.\nIf it is UTF-16 without a mark, say so"),
        ],
    )
    def test_says_what_is_wrong_with_a_file(self, write: Write, content: str | bytes, message: str) -> None:
        path = write("a.csv", content)
        with pytest.raises(DataError) as caught:
            read_table(path)
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 2


class TestText:
    @pytest.mark.parametrize(
        "content", ["one\n\nthree\u2028still three", "\ufeffone\r\n\r\nthree\u2028still three\r\n"]
    )
    def test_is_one_text_a_line(self, write: Write, content: str | bytes) -> None:
        table = read_table(write("a.txt", content))
        assert columns_of(table) == {"text": ["one", "", "three\u2028still three"]}
        assert table.where(2).endswith("a.txt, line 3")

    @pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"])
    def test_without_any_text_is_empty(self, write: Write, content: str | bytes) -> None:
        with pytest.raises(DataError, match=r"a\.txt is empty\.$"):
            read_table(write("a.txt", content))


class TestImageFolder:
    def test_takes_labels_from_folders(self, tmp_path: Path) -> None:
        expected = ["cat/1.png", "cat/2.JPG", "dog/1.webp"]
        ignored = ["top.png", "cat/notes.txt", "cat/.hidden.png", ".ipynb_checkpoints/1.png", "dog/deeper/1.png"]
        for name in (*expected, *ignored):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "dog" / "folder.png").mkdir()
        assert columns_of(read_table(tmp_path)) == {"image": expected, "label": ["cat", "cat", "dog"]}

    def test_without_images_is_refused(self, tmp_path: Path) -> None:
        Image.new("RGB", (2, 2)).save(tmp_path / "top.png")
        with pytest.raises(DataError, match=r"holds no images in subfolders\.\nAn image folder has one"):
            read_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.csv", 'There is no file or folder "{path}".'),
        ("a.xlsx", '{path} ends in ".xlsx".\nReadable are .csv, .tsv, '),
        ("README", '{path} ends in "".\nReadable are .csv'),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    if name != "absent.csv":
        path.write_text("x")
    with pytest.raises(DataError) as caught:
        read_table(str(path))
    assert str(caught.value).startswith(message.format(path=path))


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_table(tmp_path / ("x" * 300 + ".csv"))
