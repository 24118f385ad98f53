"""Which roles columns play, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuner_core.data import view
from finetuner_core.data.dataset import Dataset
from finetuner_core.data.forms import Reading, find_items, understand, understand_splits
from finetuner_core.data.roles import ALIASES
from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError
from finetuner_core.values import MODALITIES_OF_TASK, BackboneInfo

REAL = Path(__file__).parents[3] / "shared" / "data"
INFO_OF = {task: BackboneInfo("m", task, 4, "toy", "") for task in MODALITIES_OF_TASK}
TEXT, IMAGE, BOTH = INFO_OF["text-to-text"], INFO_OF["image-to-image"], INFO_OF["text-to-image"]


class Lazy:
    """A column that gives its cells when they are asked for, as a memory-mapped file does."""

    def __init__(self, cells: Sequence[object]) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, row: int) -> object:
        return self.cells[row]

    def take(self, rows: Sequence[int] | np.ndarray) -> list[object]:
        return [self.cells[int(row)] for row in rows]

    def select(self, rows: Sequence[int] | np.ndarray) -> Lazy:
        return Lazy(self.take(rows))

    def identities(self) -> np.ndarray:
        known: dict[str, int] = {}
        return np.array([known.setdefault(repr(cell), len(known)) for cell in self.cells], np.int64)


def table(columns: Mapping[str, Any]) -> Table:
    return Table(Path("data/a.csv"), columns)


def read(columns: Mapping[str, Any], mapped: Mapping[str, str] | None = None, **settings: Any) -> Reading:
    return understand(table(columns), settings.pop("info", None), mapped, **settings)


def cells_of(data: Dataset) -> list[list[object]]:
    return [list(column.take(range(len(column)))) for column in data.columns]


def scores_of(data: Dataset) -> list[list[float]]:
    assert data.scores is not None
    return [[float(score) for score in row] for row in data.scores]


A, B, C, D = ["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]


@pytest.mark.parametrize(
    ("headers", "mapped", "form", "expected", "unused"),
    [
        ("Query Document", "", "pairs", "anchor=Query positive=Document", ""),
        ("question answer id", "", "pairs", "anchor=question positive=answer", "id"),
        ("sentence category", "", "labelled", "text=sentence label=category", ""),
        # The names that Finetuner knows come before usual ones, in whichever form.
        ("sentence class anchor positive", "", "pairs", "anchor=anchor positive=positive", "sentence class"),
        ("query anchor positive", "", "pairs", "anchor=anchor positive=positive", "query"),
        # The number behind a name says which comes first.
        (
            "anchor positive negative_10 negative_2 negative",
            "",
            "pairs",
            "anchor=anchor positive=positive negative=negative,negative_2,negative_10",
            "",
        ),
        # What a mapping leaves open is looked for; one that is complete stands as it is.
        ("q positive negative", "anchor=q", "pairs", "anchor=q positive=positive negative=negative", ""),
        ("q positive negative", "anchor=q positive=positive", "pairs", "anchor=q positive=positive", "negative"),
        (
            "q p m n",
            "anchor=q positive=p negative_2=m negative_1=n",
            "pairs",
            "anchor=q positive=p negative=n,m",
            "",
        ),
        ("sentence1 sentence2 score", "", "scored", "anchor=sentence1 positive=sentence2 score=score", ""),
        (
            "sentence1 sentence2 score",
            "anchor=sentence1 positive=sentence2",
            "pairs",
            "anchor=sentence1 positive=sentence2",
            "score",
        ),
        ("s t gold", "anchor=s positive=t score=gold", "scored", "anchor=s positive=t score=gold", ""),
    ],
)
def test_roles(headers: str, mapped: str, form: str, expected: str, unused: str) -> None:
    columns = {header: ["1", "2"] for header in headers.split()}
    for info in (None, TEXT):
        reading = read(columns, dict(own.split("=") for own in mapped.split()), info=info)
        assert (reading.dataset.form, reading.skipped) == (form, 0)
        assert " ".join(f"{role}={','.join(own)}" for role, own in reading.roles.items()) == expected
        assert " ".join(reading.unused) == unused
        assert [column.name for column in reading.dataset.columns] == [
            header for role, own in reading.roles.items() if role not in ("label", "score") for header in own
        ]


def test_two_columns_for_one_role_are_not_guessed_between() -> None:
    with pytest.raises(DataError, match=r'"query" and "question" could both be anchor\.\nOther headers'):
        read({"query": A, "question": B, "answer": C}, info=TEXT)
    assert read({"query": A, "question": B, "answer": C}, {"anchor": "question"}).roles["anchor"] == ("question",)


def test_candidates_without_scores_are_no_hard_negatives() -> None:
    with pytest.raises(DataError, match=r"has the candidates candidate_1, candidate_2 and no scores\.\nEach needs one"):
        read({"query": A, "candidate_1": B, "candidate_2": C})


def test_an_empty_text_is_encoded_and_null_is_not() -> None:
    def encoded(cells: list[object]) -> list[object]:
        column = find_items(table({"text": Lazy(cells)}), TEXT, None, None)
        return list(column.take(range(len(cells))))

    assert encoded(["a", "", " "]) == ["a", "", " "]
    assert encoded(["", ""]) == ["", ""]
    for cell in (None, 7, float("nan"), ["a"]):
        with pytest.raises(DataError, match=r"^data/a\.csv, row 1: the text .*\nEach row is encoded"):
            encoded(["a", cell, ""])


def test_each_usual_header_is_no_other_roles_own_name() -> None:
    for usual in ALIASES.values():
        assert not {*usual} & ({*ALIASES} - {"label", "labels"})


class TestSeveral:
    def test_hard_negatives_in_a_list(self) -> None:
        data = read({"anchor": A, "positive": B, "negatives": [["e", "f"], ["g", "h"]]}).dataset
        assert data.summary() == "2 pairs of texts with 2 hard negatives"
        assert cells_of(data) == [A, B, ["e", "g"], ["f", "h"]]

    def test_several_captions_of_an_image(self) -> None:
        columns = {"image": Lazy(["x.png", "y.png"]), "captions": Lazy([["a", "b", "c"], ["d"]])}
        data = read(columns).dataset
        x, y = Path("data/x.png"), Path("data/y.png")
        assert (data.summary(), cells_of(data)) == ("4 text-image pairs", [["a", "b", "c", "d"], [x, x, x, y]])

    def test_several_positives_of_an_anchor(self) -> None:
        columns = {"anchor": A, "positive": [["c", "d"], ["e"]], "negative": C}
        assert cells_of(read(columns).dataset) == [["a", "a", "b"], ["c", "d", "e"], ["e", "e", "f"]]

    def test_a_fault_is_told_by_the_row_of_the_file(self) -> None:
        with pytest.raises(DataError, match=r"row 1: the text \(captions\) is empty\."):
            read({"image": ["x.png", "y.png"], "captions": [["a", "b", "c"], ["d", ""]]})
        with pytest.raises(DataError, match=r"row 1: the text \(captions\) is empty\."):
            read({"image": ["x.png", "y.png"], "captions": [["a", "b", "c"], []]})
        with pytest.raises(DataError, match=r"row 1: negatives holds a list of 1 where the first row has a list of 2"):
            read({"anchor": A, "positive": B, "negatives": [["e", "f"], ["g"]]})

    def test_vectors(self) -> None:
        vectors = [[1.0, 2.0], [3.0, 4.0]]
        data = read({"anchor": vectors, "positive": Lazy(vectors), "negatives": [vectors, vectors]}).dataset
        assert data.summary() == "2 pairs of vectors with 2 hard negatives"
        assert np.array_equal(data.columns[3].items, [[3, 4], [3, 4]])  # type: ignore[arg-type]


class TestScores:
    def test_pairs(self) -> None:
        data = read({"sentence1": A, "sentence2": B, "score": [" 0.5", "4"]}).dataset
        assert (data.summary(), scores_of(data)) == ("2 scored pairs of texts", [[0.5], [4]])
        assert data.scores is not None
        assert data.scores.dtype == np.float32

    @pytest.mark.parametrize(
        "columns",
        [
            {"candidate_1": B, "candidate_2": C, "score_1": ["1", "2"], "score_2": ["3", "4"]},
            {"candidates": [["c", "e"], ["d", "f"]], "scores": [[1, 3], [2, 4]]},
            {"positive": B, "negative": C, "scores": Lazy([[1, 3], [2, 4]])},
            {"document": B, "negative": C, "score_2": [3, 4], "score_1": [1, 2]},
        ],
    )
    def test_of_a_teacher(self, columns: dict[str, Any]) -> None:
        data = read({"query": A, **columns}).dataset
        assert (data.summary(), cells_of(data)) == ("2 scored texts with 2 candidates", [A, B, C])
        assert scores_of(data) == [[1, 3], [2, 4]]

    def test_margins_are_scores_of_the_same_differences(self) -> None:
        data = read({"anchor": A, "positive": B, "negative": C, "score": ["3.5", "-1"]}).dataset
        assert [first - second for first, second in scores_of(data)] == [3.5, -1]
        several = read({"anchor": A, "positive": B, "negatives": [["e", "f"], ["g", "h"]], "scores": [[1, 2], [3, 4]]})
        assert [[row[0] - other for other in row[1:]] for row in scores_of(several.dataset)] == [[1, 2], [3, 4]]

    def test_there_must_be_one_for_each(self) -> None:
        columns = {"anchor": A, "positive": B, "negative_1": C, "negative_2": D, "score": ["1", "2"]}
        with pytest.raises(
            DataError, match=r"score holds 1 score a row for 3 candidates\.\nThere is one score for each"
        ):
            read(columns)

    @pytest.mark.parametrize("bad", ["", None, "high", "nan", "inf", "-Infinity", float("nan"), 1e300, [1], {}])
    def test_that_are_none(self, bad: object) -> None:
        columns = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "score": ["1", bad, "3"]}
        with pytest.raises(
            DataError, match=r"data/a\.csv, row 1: score is .*\nMend or remove it, or go on without: --skip"
        ):
            read(columns)
        kept = read(columns, skip_bad_items=True)
        assert (kept.skipped, cells_of(kept.dataset), scores_of(kept.dataset)) == (
            1,
            [["a", "c"], ["d", "f"]],
            [[1], [3]],
        )


VECTORS = INFO_OF["all"]
URL = "https://a.org/b.png"


@pytest.mark.parametrize(
    ("info", "header", "cells", "message"),
    [
        (TEXT, "text", ["a", "", "c"], "the text is empty."),
        (TEXT, "text", ["a", None, "c"], "the text is empty."),
        (TEXT, "text", ["a", float("nan"), "c"], "the text is empty."),
        (TEXT, "sentence", ["a", " \t", "c"], "the text (sentence) is empty."),
        (TEXT, "text", ["a", 7, "c"], 'the text holds "7", a number among texts.'),
        (TEXT, "text", [1, "7", 2], 'the text holds "7", a text among numbers.'),
        (TEXT, "text", ["a", {"b": 1}, "c"], "the text holds \"{'b': 1}\", which is no text."),
        (TEXT, "text", ["a", b"b", "c"], "the text holds \"b'b'\", which is no text."),
        (TEXT, "anchor", ["a", None, "c"], "the anchor is empty."),
        (TEXT, "answer", ["a", "", "c"], "the positive (answer) is empty."),
        (TEXT, "negative_1", ["a", "", "c"], "the negative (negative_1) is empty."),
        (TEXT, "label", ["x", " ", "y"], "the label is empty."),
        (TEXT, "class", ["x", 1, "y"], 'the label (class) holds "1", a number among texts.'),
        (IMAGE, "image", ["a.png", URL, "c.png"], f'the image is the URL "{URL}". Images are read from files'),
        (IMAGE, "image", ["a.png", None, "c.png"], "the image is empty."),
        (IMAGE, "image", ["a.png", 3, "c.png"], 'the image holds "3", which is no path of an image.'),
        (VECTORS, "vectors", [[1, 2], [3], [4, 5]], "the vector holds 1 numbers where the first has 2."),
        (VECTORS, "vectors", [[1, 2], None, [4, 5]], "the vector is empty."),
        (VECTORS, "vectors", [[1, 2], 3, [4, 5]], 'the vector holds "3", which is no vector.'),
        (VECTORS, "vectors", [[1, 2], [3, "x"], [4, 5]], "which is no list of numbers."),
        (VECTORS, "vectors", [[1, 2], [3, np.nan], [4, 5]], "the vector holds a NaN or an infinite value."),
    ],
)
@pytest.mark.parametrize("wrap", [list, Lazy])
def test_a_row_that_cannot_be_used(
    wrap: Callable[[Any], Any], info: BackboneInfo, header: str, cells: list[object], message: str
) -> None:
    in_pairs = header in ("anchor", "answer", "negative_1")
    beside = ["anchor", "positive"] if in_pairs else ["text", "image", "vectors", "label"]
    good: dict[str, list[object]] = {"image": ["d.png"] * 3, "vectors": [[6, 7]] * 3}
    columns = {name: good.get(name, ["d", "e", "f"]) for name in beside}
    columns.pop({"answer": "positive", "class": "label", "sentence": "text"}.get(header, header), None)
    columns = {name: wrap(own) for name, own in {**columns, header: cells}.items()}
    with pytest.raises(DataError) as caught:
        read(columns, info=info)
    assert str(caught.value).startswith("data/a.csv, row 1: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith("\nMend or remove it, or go on without: --skip-bad-items")
    kept = read(columns, info=info, skip_bad_items=True)
    assert kept.skipped == 1
    without = read({name: [own[0], own[2]] for name, own in columns.items()}, info=info).dataset
    assert repr(cells_of(kept.dataset)) == repr(cells_of(without))
    assert kept.dataset.labels == without.labels


def test_rows_are_counted_once_and_the_first_is_named() -> None:
    columns = {"anchor": ["a", "b", "", "d"], "positive": ["e", None, "", "h"]}
    with pytest.raises(DataError, match=r"row 1: the positive is empty\. \(2 of 4 rows cannot be used\)"):
        read(columns)
    assert read(columns, skip_bad_items=True).skipped == 2
    with pytest.raises(DataError, match=r"No row of data/a\.csv can be used\. data/a\.csv, row 0: the anchor is empty"):
        read({"anchor": ["", ""], "positive": B}, skip_bad_items=True)


def test_what_is_read_lazily_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "AT_ONCE", 2)
    texts, images = Lazy([f"t{row}" for row in range(5)]), Lazy([f"{row}.png" for row in range(5)])
    data = read({"text": texts, "image": images}).dataset
    assert data.columns[0].items is texts
    assert cells_of(data.select([4, 0])) == [["t4", "t0"], [Path("data/4.png"), Path("data/0.png")]]
    assert data.columns[1].identities.tolist() == [0, 1, 2, 3, 4]


def test_images_may_be_bytes() -> None:
    data = read({"image": Lazy([b"one", b"two"]), "label": A}).dataset
    assert (data.columns[0].modality, cells_of(data)) == ("image", [[b"one", b"two"]])
    with pytest.raises(DataError, match=r"row 0: the anchor holds .*, which is no text"):
        read({"anchor": [b"one", b"two"], "positive": A}, info=TEXT)


def test_numbers_may_stand_for_texts() -> None:
    data = read({"text": [10, 20], "label": [1.5, 2.5]}, info=TEXT).dataset
    assert (cells_of(data), data.labels) == ([["10", "20"]], ["1.5", "2.5"])


@pytest.mark.parametrize(
    ("columns", "summary"),
    [
        ({"image": ["a.png"], "label": ["x"]}, "1 labelled images in 1 classes"),
        ({"anchor": ["a.JPG"], "positive": ["b.png"]}, "1 pairs of images"),
        ({"anchor": ["a.b"], "positive": ["b.png"]}, "1 pairs of texts"),
        ({"text": ["a"], "image": ["b.png"], "label": ["x"]}, "1 text-image pairs"),
        ({"X": np.zeros((1, 3)), "y": np.array([2])}, "1 labelled vectors in 1 classes"),
        ({"embedding": [[1, 2]], "text": ["a"], "label": ["x"]}, "1 labelled vectors in 1 classes"),
        ({"text": ["a"], "label": ["x"]}, "1 labelled texts in 1 classes"),
    ],
)
def test_without_a_model_the_columns_and_cells_tell(columns: dict[str, Any], summary: str) -> None:
    assert read(columns).dataset.summary() == summary


def test_without_a_model_and_a_form() -> None:
    with pytest.raises(DataError, match=r"^data/a\.csv has id, name, and training needs the columns .*text,label or "):
        read({"id": A, "name": B})


def test_rows_of_a_split_after_rows_were_left_out() -> None:
    columns = {"text": ["a", "", "c", "d"], "label": ["x"] * 4, "part": ["train", "train", "test", "train"]}
    train, held_out = understand_splits(table(columns), TEXT, "part", skip_bad_items=True)
    assert (cells_of(train.dataset), cells_of(held_out.dataset)) == ([["a", "d"]], [["c"]])
    assert (train.skipped, held_out.skipped, train.unused) == (1, 0, ())


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")
@pytest.mark.parametrize(
    ("file", "mapped", "summary"),
    [
        ("tldr_commands/train_pairs.csv", {}, "5,102 pairs of texts"),
        ("stsb_en/train.csv", {}, "5,749 scored pairs of texts"),
        ("banking77/train_labels.csv", {}, "8,461 labelled texts in 77 classes"),
        ("clothing_small/items.csv", {}, "1,805 labelled images in 10 classes"),
        ("emoji/items.csv", {"text": "name"}, "4,722 text-image pairs"),
        ("vectors_clothing_mnv2/vectors.npz", {}, "1,805 labelled vectors in 10 classes"),
    ],
)
def test_real_data(file: str, mapped: dict[str, str], summary: str) -> None:
    assert understand(read_table(REAL / file), None, mapped).dataset.summary() == summary


HEADERS = st.sampled_from(
    [
        *ALIASES,
        *(name for usual in ALIASES.values() for name in usual),
        "negative_1",
        "score_2",
        "candidate_1",
        "id",
        "é",
    ]
)
CELLS = st.one_of(
    st.none(),
    st.text(max_size=4),
    st.sampled_from(["a.png", "http://a/b.png", "1.5", "nan", "train"]),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.lists(st.one_of(st.none(), st.text(max_size=2), st.floats(), st.lists(st.floats(), max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.integers(1, 4))
    columns: dict[str, Any] = {}
    for header in draw(st.lists(HEADERS, min_size=1, max_size=5, unique=True)):
        # Half of the columns hold one kind, or most tables would be refused at their first cell.
        one_kind = [
            st.text(min_size=1),
            st.floats(0, 1),
            st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2),
            CELLS,
        ]
        cells = draw(st.lists(draw(st.sampled_from(one_kind)), min_size=rows, max_size=rows))
        columns[header] = draw(st.sampled_from([list, Lazy]))(cells)
        if draw(st.integers(0, 5)) == 0:
            dtype = draw(st.sampled_from(["f2", "f4", "f8", "i8", "u1", "?", "U3", "c8", "S2", "M8[D]", "O"]))
            shape = (rows, *draw(st.lists(st.integers(0, 3), max_size=2)))
            columns[header] = np.zeros(shape, dtype)
    return columns


@given(
    tables(), st.sampled_from([None, *INFO_OF.values()]), st.booleans(), st.dictionaries(HEADERS, HEADERS, max_size=2)
)
def test_any_table_is_data_or_is_refused(
    columns: dict[str, Any], info: BackboneInfo | None, skip: bool, mapped: dict[str, str]
) -> None:
    try:
        reading = understand(table(columns), info, mapped, skip_bad_items=skip)
    except DataError:
        return
    data = reading.dataset
    assert len(data) > 0
    for column in data.columns:
        assert len(list(column.take(range(len(data))))) == len(data) == len(column.identities)
        if column.modality == "text":
            assert all(isinstance(cell, str) and cell.strip() for cell in column.take(range(len(data))))
        if column.modality == "vector":
            assert np.isfinite(column.items).all()  # type: ignore[arg-type]
    assert data.scores is None or np.isfinite(data.scores).all()
    assert reading.skipped == 0 or skip


@given(tables())
def test_any_table_is_split_or_is_refused(columns: dict[str, Any]) -> None:
    try:
        train, held_out = understand_splits(table(columns), None, next(iter(columns)))
    except DataError:
        return
    assert len(train.dataset) > 0
    assert len(held_out.dataset) > 0
