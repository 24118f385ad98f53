"""Where blocks of a file end makes no difference to what is read of it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from finetuner_core.data.formats import well_formed
from finetuner_core.data.tables import read_table


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("before", range(24))
def test_a_line_end_between_quotes_at_the_end_of_a_block(
    before: int, mark: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(well_formed, "_BLOCK", 24)
    file = tmp_path / "a.csv"
    texts = ["x" * before + "\r\nend", "\r\n", "last"]
    file.write_bytes(mark + b"t,l\r\n" + b"".join(f'"{text}",1\r\n'.encode() for text in texts))
    assert read_table(file).columns["t"].take(range(3)) == texts  # type: ignore[union-attr]
