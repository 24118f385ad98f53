from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import understand_splits
from finetuner_core.data.search_set import SearchSet
from finetuner_core.data.sources import Sources, TrainingSet, read_sources
from finetuner_core.data.tables import read_table
from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import BackboneInfo

TEXT = BackboneInfo("reader", "text-to-text", 4, "toy", "Texts")
IMAGE = BackboneInfo("viewer", "image-to-image", 4, "toy", "Images")


def pairs(count: int, prefix: str = "") -> Dataset:
    return Dataset(
        (
            Column("q", "text", [f"{prefix}q{row}" for row in range(count)]),
            Column("a", "text", [f"{prefix}a{row}" for row in range(count)]),
        )
    )


def write_pairs(path: Path, count: int = 20, header: str = "query,answer", prefix: str = "") -> Path:
    path.write_text(f"{header}\n" + "".join(f"{prefix}q{row},{prefix}a{row}\n" for row in range(count)))
    return path


def write_beir(folder: Path, splits: Mapping[str, range]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, letter in (("queries", "q"), ("corpus", "d")):
        lines = [json.dumps({"_id": f"{letter}{row}", "text": f"{name} {row}"}) for row in range(30)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for split, rows in splits.items():
        lines = [f"q{row}\td{row}\t1" for row in rows]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines))
    return folder


def texts(data: Dataset) -> list[object]:
    return list(data.columns[0].take(range(len(data))))


def held_out(sources: Sources) -> Dataset:
    assert isinstance(sources.eval, Dataset)
    return sources.eval


def test_one_data_set_is_one_part(tmp_path: Path) -> None:
    sources = read_sources(TEXT, write_pairs(tmp_path / "faq.csv"), val_split=0.25)
    (part,) = sources.parts
    assert (part.name, part.how, part.skipped, part.weight, part.loss) == ("faq.csv", "by query", 0, None, None)
    assert part.roles == {"anchor": ("query",), "positive": ("answer",)}
    assert isinstance(part.eval, Dataset)
    assert (len(part.train), len(part.eval)) == (15, 5)
    assert {*texts(part.train), *texts(part.eval)} == {f"q{row}" for row in range(20)}
    assert sources.evals == {"faq.csv": part.eval}


def test_evaluation_data_that_is_given_is_for_all(tmp_path: Path) -> None:
    given = write_pairs(tmp_path / "eval.csv", 4, prefix="e")
    files = [write_pairs(tmp_path / "a.csv", 6), write_pairs(tmp_path / "b.csv", 7)]
    sources = read_sources(TEXT, files, given)
    assert [(part.name, len(part.train), part.eval) for part in sources.parts] == [
        ("a.csv", 6, None),
        ("b.csv", 7, None),
    ]
    assert (texts(held_out(sources)), [*sources.evals]) == (["eq0", "eq1", "eq2", "eq3"], ["given"])


def test_several_keep_what_was_said_of_each(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("text,label\n" + "".join(f"t{row},{row % 3}\n" for row in range(30)))
    sources = read_sources(
        TEXT,
        [
            TrainingSet(
                write_pairs(tmp_path / "faq.csv", header="ask,told"), 2, columns={"anchor": "ask", "positive": "told"}
            ),
            TrainingSet(tmp_path / "labels.csv", 1, "triplet", {"margin": 0.3}, name="intents"),
        ],
    )
    first, second = sources.parts
    assert (first.name, first.train.form, first.weight, first.loss) == ("faq.csv", "pairs", 2, None)
    assert (second.name, second.train.form, second.loss, second.loss_options) == (
        "intents",
        "labelled",
        "triplet",
        {"margin": 0.3},
    )
    assert [*sources.evals] == ["faq.csv", "intents"]


def test_equal_names_are_told_apart() -> None:
    sources = read_sources(TEXT, [pairs(10), pairs(10, "x"), pairs(10, "y")])
    assert [part.name for part in sources.parts] == ["the data", "the data (2)", "the data (3)"]


def test_rows_by_a_split_column(tmp_path: Path) -> None:
    rows = "".join(f"q{row},a{row},{'test' if row % 4 == 0 else 'train'}\n" for row in range(8))
    (tmp_path / "a.csv").write_text(f"anchor,positive,part\n{rows}")
    sources = read_sources(TEXT, tmp_path / "a.csv", split_column="part")
    assert (sources.how, texts(held_out(sources))) == ("by column part", ["q0", "q4"])
    assert sources.parts[0].unused == ()
    with pytest.raises(OptionError, match="give a file, and no evaluation data"):
        read_sources(TEXT, pairs(4), split_column="part")
    with pytest.raises(OptionError, match="give a file, and no evaluation data"):
        read_sources(TEXT, tmp_path / "a.csv", tmp_path / "a.csv", split_column="part")


class TestBeir:
    def test_trains_on_train_and_is_measured_on_dev(self, tmp_path: Path) -> None:
        folder = write_beir(tmp_path / "set", {"train": range(20), "dev": range(20, 25), "test": range(25, 30)})
        (part,) = read_sources(TEXT, folder).parts
        assert (part.name, part.how, len(part.train)) == ("set", "by qrels/dev.tsv", 20)
        assert isinstance(part.eval, SearchSet)
        assert part.eval.summary() == "5 queries in 30 texts, 5 relevant"

    def test_else_on_test(self, tmp_path: Path) -> None:
        folder = write_beir(tmp_path / "set", {"train": range(20), "test": range(25, 30)})
        (part,) = read_sources(TEXT, folder / "qrels" / "train.tsv").parts
        assert (part.name, part.how, texts(part.train)[:2]) == ("set", "by qrels/test.tsv", ["queries 0", "queries 1"])

    @pytest.mark.parametrize("trained", ["dev", "test"])
    def test_never_on_the_judgements_that_it_trains_on(self, trained: str, tmp_path: Path) -> None:
        folder = write_beir(tmp_path / "set", {"dev": range(20), "test": range(20, 30)})
        (part,) = read_sources(TEXT, folder / "qrels" / f"{trained}.tsv").parts
        assert part.how == f"by qrels/{'test' if trained == 'dev' else 'dev'}.tsv"

    def test_else_some_pairs_are_held_out(self, tmp_path: Path) -> None:
        (part,) = read_sources(TEXT, write_beir(tmp_path / "set", {"train": range(20)})).parts
        assert isinstance(part.eval, Dataset)
        assert (part.how, len(part.eval)) == ("by anchor", 4)

    def test_measures_what_was_trained_elsewhere(self, tmp_path: Path) -> None:
        folder = write_beir(tmp_path / "set", {"test": range(3)})
        (tmp_path / "labels.csv").write_text("text,label\none,x\ntwo,x\n")
        sources = read_sources(TEXT, tmp_path / "labels.csv", folder)
        assert isinstance(sources.given, SearchSet)
        assert len(sources.train) == 2

    def test_without_judgements_for_training(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"has no qrels/train\.tsv|train"):
            read_sources(TEXT, write_beir(tmp_path / "set", {"dev": range(2), "test": range(3)}))

    def test_a_search_set_in_memory(self) -> None:
        search_set = SearchSet.of_pairs(pairs(4))
        assert read_sources(TEXT, pairs(9, "x"), search_set).given is search_set
        with pytest.raises(DataError, match=r"give its pairs\(\)"):
            read_sources(TEXT, search_set)


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    for name in "abcdefgh":
        Image.new("L", (2, 2)).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_text("no image")
    rows = [*(f"{name}.png,x" for name in "abcdefgh"), "bad.png,x", ",x", "a.png,"]
    (tmp_path / "a.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    sources = read_sources(IMAGE, tmp_path / "a.csv", skip_bad_items=True)
    assert (sources.skipped, len(sources.train) + len(held_out(sources))) == (3, 8)
    with pytest.raises(DataError, match=r"line 11: the image is empty\. \(2 of 11 rows"):
        read_sources(IMAGE, tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "train_data is an empty list"),
        ([TrainingSet(pairs(9), 1), pairs(9)], "Some data sets have a weight and some have none"),
        ([TrainingSet(pairs(9), 0)], 'The weight of a data set is "0"; it must be a number above 0'),
        ([TrainingSet(pairs(9), float("nan"))], 'The weight of a data set is "nan"'),
        ([TrainingSet(pairs(9), "2")], 'The weight of a data set is "2"; it must be a number above 0'),  # type: ignore[arg-type]
    ],
)
def test_sets_that_do_not_go_together(sets: list[object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_sources(TEXT, sets)


def test_data_of_another_modality() -> None:
    vectors = Column("v", "vector", np.zeros((9, 2), np.float32))
    with pytest.raises(DataError, match=r"reader takes texts, and the column v holds vectors\."):
        read_sources(TEXT, Dataset((vectors,), ["x"] * 9))
    with pytest.raises(DataError, match=r"and the column v holds vectors\."):
        read_sources(TEXT, pairs(9), Dataset((vectors,), ["x"] * 9))


def test_several_frames_are_several_sets_and_rows_are_one() -> None:
    table = pa.table({"anchor": [f"q{row}" for row in range(20)], "positive": [f"a{row}" for row in range(20)]})
    assert [part.train.form for part in read_sources(TEXT, [table, table]).parts] == ["pairs", "pairs"]
    assert len(read_sources(TEXT, table.to_pylist()).parts) == 1
    with pytest.raises(DataError, match="Data is a tuple, which is not read"):
        read_sources(TEXT, [("q", "a")] * 20)


class TestWidths:
    def test_all_vectors_are_of_one_width(self) -> None:
        def vectors(width: int, name: str) -> Dataset:
            return Dataset((Column("v", "vector", np.arange(20 * width).reshape(20, width)),), [*"ab"] * 10, name)

        narrow, wide = vectors(3, "narrow"), vectors(4, "wide")
        both = Dataset((narrow.columns[0], wide.columns[0]), source="both")
        message = r'^"v" of wide holds vectors of width 4, and "v" of narrow of width 3'
        for given, other in (([narrow, wide], None), (narrow, wide)):
            with pytest.raises(DataError, match=message):
                read_sources(None, given, other)
        with pytest.raises(DataError, match=r'^"v" of both holds vectors of width 4, and "v" of both of width 3'):
            read_sources(None, both)
        assert len(read_sources(None, [narrow, vectors(3, "as narrow")], vectors(3, "too")).parts) == 2


def test_an_image_is_named_with_its_line_whatever_was_left_out_before(tmp_path: Path) -> None:
    for name in ("0.png", "1.png", "2.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    rows = [
        f"{row % 3}.png,{'' if row == 1 else 'ab'[row % 2]},{'test' if row % 4 == 3 else 'train'}" for row in range(20)
    ]
    rows[18], rows[19] = "gone.png,a,train", "gone too.png,b,test"
    file = tmp_path / "a.csv"
    file.write_text("image,label,split\n" + "\n".join([rows[0], *rows[2:]]) + "\n")
    for split, line in ((None, 19), ("split", 19)):
        with pytest.raises(DataError, match=rf"^{file}, line {line}: The image .*gone.png.* cannot be read"):
            read_sources(IMAGE, file, split_column=split)
    file.write_text("image,label,split\n" + "\n".join([*rows[:18], rows[17], rows[19]]) + "\n")
    with pytest.raises(DataError, match=rf"^{file}, line 3: the label is empty"):
        read_sources(IMAGE, file, split_column="split")
    reading, held_out = understand_splits(read_table(file), IMAGE, "split", skip_bad_items=True)
    assert reading.where is not None
    assert held_out.where is not None
    assert [reading.where(row) for row in (0, 1)] == [f"{file}, line {line}" for line in (2, 4)]
    assert held_out.where(4) == f"{file}, line 21"
