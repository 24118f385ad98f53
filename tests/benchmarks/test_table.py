"""Tables, and their places in a page."""

from __future__ import annotations

import doctest

import pytest

from benchmarks.speed import figures, table
from benchmarks.speed.table import fill, megabytes
from benchmarks.speed.table import table as render

PAGE = "# Page\n\n<!-- bench: one -->\nold\n<!-- end of one -->\n\n<!-- bench: one-more -->\n<!-- end of one-more -->\n"


@pytest.mark.parametrize("module", [figures, table])
def test_the_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert not result.failed


def test_a_bar_within_a_cell_does_not_end_it() -> None:
    assert render(["a"], [["x | y"]]).splitlines()[-1] == "| x \\| y |"


def test_megabytes_are_of_two_to_the_twentieth() -> None:
    assert megabytes(3 * 2**30) == "3,072"


def test_results_take_the_place_of_the_old_ones_and_of_no_others() -> None:
    filled = fill(PAGE, "one", "new \\1 text\n")

    assert filled == PAGE.replace("old", "new \\1 text")
    assert fill(filled, "one", "old") == PAGE


@pytest.mark.parametrize("page", ["", PAGE + PAGE])
def test_a_page_without_one_place_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match=r"has [02] places for one; .* <!-- bench: one -->"):
        fill(page, "one", "new")
