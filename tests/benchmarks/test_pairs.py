"""Pairs from documentation."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.speed.pairs import Pair, brief, equal, mine, read

SOURCE = '''
    class Bird:
        """A bird that sings.

        It sings in the morning and
        in the evening.
        """

        def sing(self, song, *, loud=False):
            """Sing one song. Others may listen to it."""

        def quiet(self):
            """Nothing."""

        async def fly(self, height):
            """Fly as high as told"""

        def none(self):
            pass


    def sing_again(song):
        """Sing another song. Others may listen to it."""
'''


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    (folder / "tests").mkdir(parents=True)
    (folder / "bird.py").write_text(dedent(SOURCE))
    (folder / "broken.py").write_text("def broken(:\n")
    (folder / "latin.py").write_bytes(b"'''\xe9'''\n")
    (folder / "tests" / "bird.py").write_text('def test():\n    """A test that nobody looks for."""\n')
    return folder


def test_a_name_and_its_first_sentence_ask_for_the_rest(sources: Path) -> None:
    assert set(mine(3, [sources])) == {
        Pair("class Bird: A bird that sings.", "It sings in the morning and in the evening."),
        Pair("sing_again(song): Sing another song.", "Others may listen to it."),
        Pair("fly(height)", "Fly as high as told"),
    }


def test_no_text_stands_in_two_pairs(sources: Path) -> None:
    with pytest.raises(ValueError, match=r"4 pairs are wanted, and there are 3\."):
        mine(4, [sources])


def test_the_order_is_always_the_same(sources: Path) -> None:
    (sources / "more.py").write_text('def more(x):\n    """More of it all."""\n')

    assert mine(4, [sources]) == mine(4, [sources])
    assert mine(2, [sources]) == mine(4, [sources])[:2]


def test_equal_texts_have_as_many_words_as_asked_for(sources: Path) -> None:
    assert equal(1, 6, [sources]) == [Pair("A bird that sings. It sings", "in the morning and in the")]


def test_brief_texts_have_no_more_words_than_asked_for(sources: Path) -> None:
    assert Pair("class Bird: A", "It sings in") in brief(3, 3, [sources])


def test_pairs_of_ones_own_are_the_first_two_columns(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("anchor,positive,more\nquestion,answer,1\nquestion,other,2\n,empty,3\nlast,one\n", "utf-8")

    assert read(file) == [Pair("question", "answer"), Pair("last", "one")]
