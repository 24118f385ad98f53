from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import find_items, read_dataset, understand, understand_splits
from finetuner_core.data.tables import Table, read_table
from finetuner_core.errors import DataError
from finetuner_core.values import BackboneInfo

TEXT = BackboneInfo("reader", "text-to-text", 4, "toy", "Texts")
IMAGE = BackboneInfo("viewer", "image-to-image", 4, "toy", "Images")
BOTH = BackboneInfo("both", "text-to-image", 4, "toy", "Texts and images")
VECTOR = BackboneInfo("mixer", "all", 4, "toy", "Vectors")

VECTORS = np.arange(8.0).reshape(4, 2)


def table(columns: Mapping[str, object]) -> Table:
    return Table(Path("data/a.csv"), columns)  # type: ignore[arg-type]


def items_of(column: Column) -> list[object]:
    return list(column.take(range(len(column))))


def described(dataset: Dataset) -> tuple[object, ...]:
    columns = [(column.name, column.modality, items_of(column)) for column in dataset.columns]
    return dataset.form, columns, dataset.labels


A, B = Path("data/a.png"), Path("data/sub/b.png")
IMAGES = ["a.png", "sub/b.png"]


@pytest.mark.parametrize(
    ("info", "columns", "expected"),
    [
        (TEXT, {"text": ["s", "t"], "label": ["x", " y "]}, ("labelled", [("text", "text", ["s", "t"])], ["x", "y"])),
        (
            TEXT,
            {"label": ["1", "2"], "more": ["", ""], "text": ["s", "t"]},
            ("labelled", [("text", "text", ["s", "t"])], ["1", "2"]),
        ),
        (
            TEXT,
            {"positive": ["p", "q"], "anchor": ["s", "t"]},
            ("pairs", [("anchor", "text", ["s", "t"]), ("positive", "text", ["p", "q"])], None),
        ),
        # The first form that is there counts.
        (
            TEXT,
            {"anchor": ["a"], "positive": ["p"], "text": ["s"], "label": ["x"]},
            ("labelled", [("text", "text", ["s"])], ["x"]),
        ),
        (IMAGE, {"image": IMAGES, "label": ["x", "y"]}, ("labelled", [("image", "image", [A, B])], ["x", "y"])),
        (
            IMAGE,
            {"anchor": IMAGES, "positive": IMAGES[::-1]},
            ("pairs", [("anchor", "image", [A, B]), ("positive", "image", [B, A])], None),
        ),
        (
            BOTH,
            {"image": IMAGES, "text": ["s", "t"]},
            ("pairs", [("text", "text", ["s", "t"]), ("image", "image", [A, B])], None),
        ),
        # A label beside them makes no difference.
        (
            BOTH,
            {"image": IMAGES, "text": ["s", "t"], "label": ["x", "y"]},
            ("pairs", [("text", "text", ["s", "t"]), ("image", "image", [A, B])], None),
        ),
    ],
)
def test_recognises_the_form_that_fits_the_task(
    info: BackboneInfo, columns: dict[str, list[str]], expected: tuple[object, ...]
) -> None:
    assert described(understand(table(columns), info).dataset) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8, np.uint16])
def test_vectors_become_float32(dtype: type) -> None:
    labels = np.array([3, 3, 5, 5])
    dataset = understand(table({"vectors": VECTORS.astype(dtype), "labels": labels}), VECTOR).dataset
    (column,) = dataset.columns
    assert (column.name, column.modality, dataset.labels) == ("vectors", "vector", ["3", "3", "5", "5"])
    assert isinstance(column.items, np.ndarray)
    assert column.items.dtype == np.float32
    assert np.array_equal(column.items, VECTORS)


def with_value(row: int, value: float) -> np.ndarray:
    vectors = VECTORS.copy()
    vectors[row, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (with_value(2, np.nan), "data/a.csv, row 2: the vector holds a NaN or an infinite value."),
        (
            np.vstack([VECTORS, with_value(0, np.inf), with_value(3, -np.inf)])[:8],
            "row 4: the vector holds a NaN or an infinite value.\nMend or remove it",
        ),
        (
            np.vstack([with_value(1, np.inf), with_value(3, np.nan)]),
            "row 1: the vector holds a NaN or an infinite value. (2 of 8 rows cannot be used)",
        ),
        # Finite, and no longer so in float32. It must not warn besides.
        (with_value(3, 1e300), "row 3: the vector holds a NaN or an infinite value."),
        (np.arange(4.0), "vectors must be numbers of shape (N, D), not float64 of shape (4,)."),
        (np.zeros((4, 2, 2)), "not float64 of shape (4, 2, 2)."),
        (np.zeros((4, 0)), "not float64 of shape (4, 0)."),
        (VECTORS.astype(str), "not <U32 of shape (4, 2)."),
        (VECTORS > 3, "not bool of shape (4, 2)."),
        (VECTORS + 1j, "not complex128 of shape (4, 2)."),
        (["1 2", "3 4", "5 6", "7 8"], "not <U3 of shape (4,)."),
    ],
)
def test_vectors_that_are_none(vectors: object, message: str) -> None:
    labels = ["x"] * len(vectors)  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        understand(table({"vectors": vectors, "labels": labels}), VECTOR)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("info", "found", "expected"),
    [
        (
            TEXT,
            "image,label",
            "reader takes texts and needs the columns text,label or anchor,positive; "
            "data/a.csv has image, label.\nOther headers can be mapped: --columns anchor=...,positive=...",
        ),
        (
            IMAGE,
            "text,label",
            "viewer takes images and needs the columns image,label or anchor,positive; "
            "data/a.csv has text, label.\nOther headers can be mapped: --columns anchor=...,positive=...",
        ),
        (
            IMAGE,
            "text,image",
            "viewer takes images and needs the columns image,label or anchor,positive; data/a.csv has text, image.\n"
            "To find images by texts, give a model for the texts as well: --text-model NAME",
        ),
        (
            BOTH,
            "image,label",
            "both takes texts and images and needs the columns text,image; data/a.csv has image, label.\n"
            "Other headers can be mapped: --columns text=...,image=...",
        ),
        (
            VECTOR,
            "vectors",
            "mixer takes vectors and needs the columns vectors,labels or anchor,positive; data/a.csv has vectors.\n"
            "Other headers can be mapped: --columns anchor=...,positive=...",
        ),
    ],
)
def test_says_what_is_expected_and_what_was_found(info: BackboneInfo, found: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        understand(table({name: ["x"] for name in found.split(",")}), info)
    assert str(caught.value) == expected


def test_an_empty_label_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\none,x\n"two\nlines",x\nthree, \nfour,\n')
    with pytest.raises(DataError) as caught:
        read_dataset(path, TEXT)
    assert str(caught.value) == (
        f"{path}, line 5: the label is empty. (2 of 4 rows cannot be used)\n"
        "Mend or remove it, or go on without: --skip-bad-items"
    )


class TestFiles:
    def test_headers_are_mapped(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("name,text,kind\nAda,of no use,x\nBob,either,y\n")
        dataset = read_dataset(path, TEXT, {"text": "name", "label": "kind"})
        assert described(dataset) == ("labelled", [("name", "text", ["Ada", "Bob"])], ["x", "y"])
        assert dataset.source == str(path)
        with pytest.raises(DataError, match=r'no column "kin".* Did you mean "kind"'):
            read_dataset(path, TEXT, {"label": "kin"})

    def test_image_paths_are_relative_to_the_file(self, tmp_path: Path) -> None:
        absolute = tmp_path / "elsewhere" / "c.png"
        path = tmp_path / "sub" / "a.csv"
        path.parent.mkdir()
        path.write_text(f"image,label\nb.png,x\n../c.png,y\n{absolute},x\n")
        (column,) = read_dataset(path, IMAGE).columns
        assert items_of(column) == [path.parent / "b.png", path.parent / "../c.png", absolute]

    def test_images_of_a_folder(self, tmp_path: Path) -> None:
        for name in ("cat/1.png", "dog/1.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        expected = [("image", "image", [tmp_path / "cat/1.png", tmp_path / "dog/1.png"])]
        assert described(read_dataset(tmp_path, IMAGE)) == ("labelled", expected, ["cat", "dog"])


class TestSplits:
    def read(self, tmp_path: Path, values: list[str], columns: dict[str, str] | None = None) -> tuple[Dataset, Dataset]:
        rows = "".join(f"text {row},label {row % 2},{value}\n" for row, value in enumerate(values))
        (tmp_path / "a.csv").write_text("text,label,part\n" + rows)
        train, held_out = understand_splits(read_table(tmp_path / "a.csv"), TEXT, "part", columns)
        return train.dataset, held_out.dataset

    @pytest.mark.parametrize("train", ["train", "Training", " TRAIN "])
    @pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation", "dev", "eval", " Test"])
    def test_tells_rows_apart(self, tmp_path: Path, train: str, held_out: str) -> None:
        training, evaluation = self.read(tmp_path, [train, held_out, train, train])
        assert items_of(training.columns[0]) == ["text 0", "text 2", "text 3"]
        assert training.labels == ["label 0", "label 0", "label 1"]
        assert items_of(evaluation.columns[0]) == ["text 1"]

    def test_the_column_can_be_mapped_to_another_name_as_well(self, tmp_path: Path) -> None:
        training, evaluation = self.read(tmp_path, ["train", "dev"], {"label": "part"})
        assert (training.labels, evaluation.labels) == (["train"], ["dev"])

    @pytest.mark.parametrize("value", ["holdout", "", "1"])
    def test_names_the_line_of_another_value(self, tmp_path: Path, value: str) -> None:
        with pytest.raises(DataError) as caught:
            self.read(tmp_path, ["train", "test", value, "worse"])
        assert str(caught.value) == (
            f'{tmp_path / "a.csv"}, line 4: column part has the value "{value}".\n'
            "Allowed are train, training and dev, eval, test, val, valid, validation."
        )

    @pytest.mark.parametrize(
        ("values", "missing"), [(["test", "val"], "train"), (["train", "train"], "test, val, dev or eval")]
    )
    def test_needs_both_sides(self, tmp_path: Path, values: list[str], missing: str) -> None:
        with pytest.raises(DataError, match=f"no row has {missing} in column part"):
            self.read(tmp_path, values)

    def test_an_unknown_column(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\na,b\n")
        with pytest.raises(DataError, match='has no column "split"'):
            understand_splits(read_table(tmp_path / "a.csv"), TEXT, "split")


@pytest.mark.parametrize(
    ("info", "headers", "column", "modality", "expected"),
    [
        (TEXT, "text,label", None, None, ("text", "text")),
        (TEXT, "question", None, None, ("question", "text")),
        (TEXT, "text,question", "question", None, ("question", "text")),
        (TEXT, "text,question", None, "text", ("text", "text")),
        (IMAGE, "label,image", None, None, ("image", "image")),
        (IMAGE, "text", None, None, ("text", "image")),
        (BOTH, "text,label", None, None, ("text", "text")),
        (BOTH, "image,label", None, None, ("image", "image")),
        (BOTH, "text,image", None, "image", ("image", "image")),
        (BOTH, "text,image", "image", None, ("image", "image")),
        (BOTH, "caption,image", "caption", "text", ("caption", "text")),
        (BOTH, "caption", None, "text", ("caption", "text")),
    ],
)
def test_finds_what_to_encode(
    info: BackboneInfo, headers: str, column: str | None, modality: str | None, expected: tuple[str, str]
) -> None:
    found = find_items(table({name: [f"{name} cell"] for name in headers.split(",")}), info, column, modality)
    assert (found.name, found.modality) == expected
    cell = f"{expected[0]} cell"
    assert items_of(found) == [Path("data") / cell if found.modality == "image" else cell]


def test_finds_vectors_beside_other_arrays() -> None:
    found = find_items(table({"ids": np.arange(4), "vectors": VECTORS}), VECTOR, None, None)
    assert (found.name, found.modality) == ("vectors", "vector")
    assert np.array_equal(np.asarray(found.items), VECTORS)


@pytest.mark.parametrize(
    ("info", "headers", "column", "modality", "expected"),
    [
        (
            TEXT,
            "question,answer",
            None,
            None,
            "has the columns question, answer; which one is to be encoded?\nSay --column HEADER",
        ),
        (TEXT, "text,label", "name", None, 'has no column "name"; it has text, label.'),
        (TEXT, "text", None, "image", 'reader does not take "image"; it takes text.'),
        (BOTH, "text,image", None, "txt", 'both does not take "txt"; it takes text and image.'),
        (
            BOTH,
            "text,image",
            None,
            None,
            "both takes text or image; which of them is in data/a.csv?\nSay --modality text or --modality image",
        ),
        (BOTH, "caption", None, None, "which of them is in data/a.csv?\nSay --modality text or --modality image"),
        (
            BOTH,
            "caption,image",
            "caption",
            None,
            "which of them is in data/a.csv?\nSay --modality text or --modality image",
        ),
    ],
)
def test_asks_where_that_is_not_clear(
    info: BackboneInfo, headers: str, column: str | None, modality: str | None, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_items(table({name: ["x"] for name in headers.split(",")}), info, column, modality)
    assert expected in str(caught.value)


def test_a_file_without_its_line_numbers_is_told_by_rows() -> None:
    with pytest.raises(DataError, match=r"data/a\.csv, row 1: the label is empty\."):
        understand(table({"text": ["s", "t"], "label": ["x", ""]}), TEXT)


def test_mapped_columns_decide_which_form_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "both.csv"
    file.write_text("text,label,q,a\nhi,greet,how?,so\n")
    row = BackboneInfo("m", "text-to-text", 4, "toy", "")
    assert read_dataset(file, row).form == "labelled"
    mapped = read_dataset(file, row, {"anchor": "q", "positive": "a"})
    assert mapped.form == "pairs"
    assert [items_of(column) for column in mapped.columns] == [["how?"], ["so"]]


def test_a_mapping_to_a_name_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("q,a\nhow?,so\n")
    with pytest.raises(DataError, match=r'"ancor" is no column .*Did you mean "anchor"'):
        read_dataset(file, BackboneInfo("m", "text-to-text", 4, "toy", ""), {"ancor": "q", "positive": "a"})
