"""Frames of pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetuner_core.data.formats import memory
from finetuner_core.errors import DataError

pd = pytest.importorskip("pandas")


def test_cells_of_every_type() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "ä"],
            "string": pd.array(["a", None, "ä"], dtype="string"),
            "float": [1.0, None, 2.5],
            "int": pd.array([1, None, 3], dtype="Int64"),
            "bool": [True, False, True],
            "category": pd.Categorical(["x", None, "x"]),
            "date": pd.to_datetime(["2020-01-02", None, "2021-01-01"]),
            "list": [["a"], [], None],
            7: ["p", "q", "r"],
        },
        index=[5, 5, 9],
    )
    table = memory.read(frame)
    assert table is not None
    assert table.columns == {
        "text": ["a", None, "ä"],
        "string": ["a", None, "ä"],
        "float": [1.0, None, 2.5],
        "int": [1, None, 3],
        "bool": [True, False, True],
        "category": ["x", None, "x"],
        "date": ["2020-01-02", None, "2021-01-01"],
        "list": [["a"], [], None],
        "7": ["p", "q", "r"],
    }
    assert table.where(1) == "the frame, row 1"


def test_arrays_in_cells_and_series_as_columns() -> None:
    vectors: Any = [np.ones(2), np.zeros(2)]
    table = memory.read(pd.DataFrame({"vectors": vectors}))
    assert table is not None
    np.testing.assert_array_equal(np.stack(list(table.columns["vectors"])), vectors)  # type: ignore[arg-type]
    table = memory.read({"text": pd.Series(["a", None], index=[3, 4])})
    assert table is not None
    assert table.columns == {"text": ["a", None]}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame(), "the frame has no columns"),
        (pd.DataFrame({"a": []}), r"the frame has columns \(a\) and no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), 'the frame has two columns "a"'),
    ],
)
def test_empty_and_repeated(frame: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        memory.read(frame)
