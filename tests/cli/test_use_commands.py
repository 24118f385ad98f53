from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from finetuner_core.cli import cli

if TYPE_CHECKING:
    import numpy as np

    from finetuner_core import EmbeddingModel
    from finetuner_core.values import Modality

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")

TEXTS = ["one, two", "three", "", "four\u2028and five", "six"]
CSV = 'text,label,more\n"one, two",x,a\nthree,y,b\n"",x,c\nfour\u2028and five,y,d\nsix,x,e\n'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def assert_fails(result: Result, *expected: str) -> None:
    """It exits with 2, and says on stderr alone, in one line or two, what was expected."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) in (1, 2), result.stderr
    for part in expected:
        assert part in result.stderr


@pytest.fixture
def place(acme: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a saved model and data."""
    import finetuner

    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    finetuner.build_model("letters", pretrained=False).save("saved")
    (folder / "data.csv").write_text(CSV, encoding="utf-8")
    return folder


def load(path: Path) -> np.ndarray:
    import numpy as np

    vectors: np.ndarray = np.load(path, allow_pickle=False)
    return vectors


def saved_model(place: Path) -> EmbeddingModel:
    import finetuner

    return finetuner.load(place / "saved")


def save_images(folder: Path) -> list[Path]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = [folder / "photos" / name for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


class TestEncode:
    @pytest.mark.parametrize("model", ["saved", "./saved", "saved/"])
    @pytest.mark.parametrize("batch_size", [(), ("--batch-size", 2)])
    def test_writes_what_the_model_gives(self, place: Path, model: str, batch_size: tuple[object, ...]) -> None:
        import numpy as np

        result = run("encode", model, "data.csv", "--out", "vectors.npy", *batch_size)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == f"5 vectors of width 16 written to {place / 'vectors.npy'}\n"
        vectors = load(place / "vectors.npy")
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, saved_model(place).encode(TEXTS), rtol=0, atol=1e-6)
        assert sorted(path.name for path in place.iterdir()) == ["data.csv", "saved", "vectors.npy"]

    def test_a_file_that_is_there_is_replaced(self, place: Path) -> None:
        (place / "vectors.npy").write_text("old")
        assert run("encode", "saved", "data.csv", "--out", "vectors.npy").exit_code == 0
        assert load(place / "vectors.npy").shape == (5, 16)

    def test_a_text_file_gives_a_vector_for_each_line(self, place: Path) -> None:
        (place / "data.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        assert run("encode", "saved", "data.txt", "--out", "a.npy").exit_code == 0
        assert run("encode", "saved", "data.csv", "--out", "b.npy").exit_code == 0
        assert (load(place / "a.npy") == load(place / "b.npy")).all()

    def test_another_column(self, place: Path) -> None:
        assert run("encode", "saved", "data.csv", "--out", "a.npy", "--column", "more").exit_code == 0
        assert (load(place / "a.npy") == saved_model(place).encode(list("abcde"))).all()

    def test_images_of_a_folder(self, place: Path) -> None:
        import finetuner

        paths = save_images(place)
        assert run("encode", "pixels", "photos", "--out", "a.npy").exit_code == 0
        assert (load(place / "a.npy") == finetuner.build_model("pixels").encode(paths)).all()

    def test_vectors(self, place: Path) -> None:
        import numpy as np

        import finetuner

        model = finetuner.build_model("numbers", input_size=3)
        model.save("mixed")
        vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
        np.savez("data.npz", vectors=vectors, ids=np.arange(7))
        assert run("encode", "mixed", "data.npz", "--out", "a.npy").exit_code == 0
        assert (load(place / "a.npy") == model.encode(vectors)).all()

    def test_a_folder_never_hides_a_name(self, place: Path) -> None:
        import finetuner

        finetuner.build_model("letters", pooling="max").save("letters")
        assert run("encode", "letters", "data.csv", "--out", "name.npy").exit_code == 0
        assert run("encode", "./letters", "data.csv", "--out", "folder.npy").exit_code == 0
        texts = list(TEXTS)
        assert (load(place / "name.npy") == finetuner.build_model("letters").encode(texts)).all()
        assert (load(place / "folder.npy") == finetuner.load("letters").encode(texts)).all()
        assert not (load(place / "name.npy") == load(place / "folder.npy")).all()

    def test_a_model_of_two_modalities(self, place: Path) -> None:
        import finetuner

        paths = save_images(place)
        rows = [f"photos/{path.parent.name}/{path.name},caption {number}" for number, path in enumerate(paths)]
        (place / "pairs.csv").write_text("\n".join(["image,text", *rows]))
        model = finetuner.build_model("both")
        captions = [f"caption {number}" for number in range(4)]
        cases: list[tuple[Modality, Sequence[object]]] = [("text", captions), ("image", paths)]
        for modality, items in cases:
            result = run("encode", "both", "pairs.csv", "--out", f"{modality}.npy", "--modality", modality)
            assert result.exit_code == 0, result.stderr
            assert (load(place / f"{modality}.npy") == model.encode(items, modality=modality)).all()
        # What the column is called, or the only one that there is, says it as well.
        assert run("encode", "both", "pairs.csv", "--out", "a.npy", "--column", "image").exit_code == 0
        assert run("encode", "both", "photos", "--out", "b.npy").exit_code == 0
        assert (load(place / "a.npy") == load(place / "image.npy")).all()
        assert (load(place / "b.npy") == load(place / "image.npy")).all()
        assert_fails(
            run("encode", "both", "pairs.csv", "--out", "c.npy"),
            "both takes text or image; which of them is in pairs.csv?",
            "Say --modality text or --modality image",
        )

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ("saved data.csv --out a.npz", "a.npz must end in .npy or .parquet, which say how it is written."),
            ("saved data.csv --out a", "a must end in .npy or .parquet"),
            ("saved data.csv --out gone/a.npy", "gone/a.npy cannot be written: there is no folder {place}/gone."),
            ("saved data.csv --out taken.npy", "taken.npy is a folder"),
            ("saved data.csv", "Missing option '--out'"),
            ("saved gone.csv --out a.npy", 'There is no file or folder "gone.csv".'),
            ("saved data.csv --out a.npy --column txt", 'has no column "txt"; it has text, label, more.'),
            ("saved data.csv --out a.npy --modality image", 'letters does not take "image"; it takes text.'),
            ("saved data.csv --out a.npy --batch-size 0", "batch_size is 0; it must be at least 1."),
            (
                "saved data.csv --out a.npy --dtype int4",
                'dtype is "int4"; it must be one of float32, float16, int8, binary',
            ),
            ("saved data.csv --out a.npy --dtype int8 --ranges r.npy", "The ranges r.npy cannot be read: No such file"),
            ("saved data.csv --out a.npy --ranges r.npy", "ranges are what int8 is counted in"),
            ("saved data.csv --out a.npy --side both", 'side is "both"; it is "query" for what asks'),
            ("saved data.csv --out data.csv", "data.csv must end in .npy or .parquet"),
            ("saved data.csv --out a.npy --batch-size many", "'many' is not a valid integer"),
            ("leters data.csv --out a.npy", 'Did you mean "letters"'),
            ("pixels data.csv --out a.npy", "data.csv has the columns text, label, more; which one is to be encoded?"),
            ("pixels data.csv --out a.npy --column more", 'a" cannot be read: there is no such file.'),
        ],
    )
    def test_says_what_is_wrong_and_writes_nothing(self, place: Path, arguments: str, expected: str) -> None:
        (place / "taken.npy").mkdir()
        before = sorted(place.rglob("*"))
        assert_fails(run("encode", *arguments.split()), expected.format(place=place))
        assert sorted(place.rglob("*")) == before

    def test_a_disk_that_refuses_leaves_nothing_behind(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
        (place / "a.npy").write_text("old")
        result = run("encode", "saved", "data.csv", "--out", "a.npy")
        assert_fails(result, "a.npy cannot be written: No space left on device.")
        assert sorted(path.name for path in place.iterdir()) == ["a.npy", "data.csv", "saved"]
        assert (place / "a.npy").read_text() == "old"

    def test_fewer_bytes(self, place: Path) -> None:
        import numpy as np

        import finetuner

        vectors = saved_model(place).encode(TEXTS)
        result = run("encode", "saved", "data.csv", "--out", "a.npy", "--dtype", "int8")
        said = f"5 vectors of width 16 written as int8 to {place / 'a.npy'}, their ranges to a.ranges.npy\n"
        assert (result.exit_code, result.stderr) == (0, said)
        ranges = load(place / "a.ranges.npy")
        np.testing.assert_allclose(ranges, [vectors.min(axis=0), vectors.max(axis=0)], rtol=0, atol=1e-6)
        (place / "queries.txt").write_text("three\nsix\n")
        arguments = ("--out", "q.npy", "--dtype", "int8", "--ranges", "a.ranges.npy", "--side", "query", "--quiet")
        quiet = run("encode", "saved", "queries.txt", *arguments)
        assert (quiet.exit_code, quiet.output) == (0, "")
        np.testing.assert_allclose(load(place / "q.npy"), load(place / "a.npy")[[1, 4]], rtol=0, atol=1)
        assert run("encode", "saved", "data.csv", "--out", "b.npy", "--dtype", "binary").exit_code == 0
        np.testing.assert_array_equal(load(place / "b.npy"), finetuner.quantize(vectors, "binary"))

    def test_parquet(self, place: Path) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        assert run("encode", "saved", "data.csv", "--out", "a.parquet", "--dtype", "float16").exit_code == 0
        column = pq.read_table("a.parquet")["vectors"]
        assert str(column.type).startswith("fixed_size_list")
        assert (len(column), column.type.list_size) == (5, 16)

    @pytest.mark.parametrize("quiet", [(), ("--quiet",)])
    def test_ctrl_c_says_how_to_go_on(
        self, place: Path, quiet: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from finetuner_core.encoding import encode as room
        from finetuner_core.encoding.partial import Partial

        monkeypatch.setattr(room, "_WINDOW", {"text": 2})
        command = ("encode", "saved", "data.csv", "--out", "a.npy", *quiet)
        real = Partial.append

        def append(partial: Partial, block: np.ndarray, cut: int) -> None:
            if partial.rows == 4:
                raise KeyboardInterrupt
            real(partial, block, cut)

        with monkeypatch.context() as context:
            context.setattr(Partial, "append", append)
            stopped = run(*command)
        assert (stopped.exit_code, stopped.stdout) == (130, "")
        assert stopped.stderr == "\nStopped at row 4 of 5: the same command goes on there.\n"
        assert_fails(
            run(*command, "--dtype", "int8"),
            "holds the beginning of other vectors: dtype float32 (now int8).",
            "Go on as they were begun, or remove that folder to begin anew.",
        )
        again = run(*command)
        assert again.exit_code == 0
        assert again.stderr.startswith("" if quiet else "Going on at row 4 of 5, with what is in ")
        assert load(place / "a.npy").shape == (5, 16)


class TestEvaluate:
    @pytest.fixture(autouse=True)
    def labels(self, place: Path) -> None:
        (place / "labels.csv").write_text("text,label,more\none,x,a\ntwo,y,b\nthree,x,c\nfour,y,d\nfive,x,e\n")

    def test_prints_the_metrics(self, place: Path) -> None:
        import finetuner

        metrics = finetuner.evaluate(place / "saved", place / "labels.csv")
        as_json = run("evaluate", "saved", "labels.csv", "--json")
        assert (as_json.exit_code, as_json.stderr) == (0, "")
        assert json.loads(as_json.stdout) == metrics
        table = run("evaluate", "./saved", "labels.csv", "--batch-size", 2)
        assert (table.exit_code, table.stderr) == (0, "")
        lines = [line.split() for line in table.stdout.splitlines()]
        assert lines[0] == ["metric", "value", "95%", "interval"]
        assert lines[2:-1] == [
            [name, f"{value:.3f}", *"{:.3f} to {:.3f}".format(*metrics.interval(name)).split()]
            for name, value in metrics.items()
        ]
        assert lines[-1] == ["5", "queries"]

    def test_other_headers(self, place: Path) -> None:
        import finetuner

        (place / "pairs.csv").write_text("q,a\none,eins\ntwo,zwei\nthree,drei\n")
        columns = {"anchor": "q", "positive": "a"}
        metrics = finetuner.evaluate(place / "saved", place / "pairs.csv", columns=columns)
        result = run("evaluate", "saved", "pairs.csv", "--columns", "anchor=q, positive=a", "--json")
        assert json.loads(result.stdout) == metrics

    def test_what_is_measured(self, place: Path) -> None:
        import finetuner

        expected = finetuner.evaluate(place / "saved", "labels.csv", metrics=["map@3", "mrr"], widths=[8, 4])
        arguments = ("--metrics", "map@3, mrr", "--widths", "8,4", "--per-query", "queries.jsonl", "--json")
        result = run("evaluate", "saved", "labels.csv", *arguments)
        assert list(json.loads(result.stdout)) == list(expected) == [
            "map@3", "mrr", "width 8 map@3", "width 8 mrr", "width 4 map@3", "width 4 mrr",
        ]  # fmt: skip
        assert json.loads(result.stdout) == expected
        assert result.stderr == f"5 queries written to {place / 'queries.jsonl'}\n"
        rows = [json.loads(line) for line in (place / "queries.jsonl").read_text("utf-8").splitlines()]
        assert [row["query"] for row in rows] == ["one", "two", "three", "four", "five"] * 3
        assert [row["mrr"] for row in rows[:5]] == expected.per_query["mrr"].tolist()

    def test_images_that_cannot_be_read(self, place: Path) -> None:
        save_images(place)
        whole = json.loads(run("evaluate", "pixels", "photos", "--json").stdout)
        (place / "photos" / "dog" / "3.png").write_text("no image")
        assert_fails(run("evaluate", "pixels", "photos"), "3.png", "go on without: --skip-bad-items")
        assert json.loads(run("evaluate", "pixels", "photos", "--skip-bad-items", "--json").stdout) == whole

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ("saved gone.csv", 'There is no file or folder "gone.csv".'),
            ("saved labels.csv --columns label", '"label" is not of the form name=value.'),
            ("saved labels.csv --columns label=", '"label=" is not of the form name=value.'),
            ("saved labels.csv --columns label=txt", 'no column "txt". Did you mean "text"?'),
            ("saved labels.csv --columns label=more", "each of its 5 items has a label of its own"),
            ("saved labels.csv --batch-size -1", "batch_size is -1; it must be at least 1."),
            ("pixels labels.csv", "pixels takes images and needs the columns image,label or anchor,positive"),
            ("./gone data.csv", "gone"),
            ("saved labels.csv --metrics recal@20", 'There is no metric "recal@20". Did you mean "recall@20"?'),
            ("saved labels.csv --widths 8,x", '"x" is no whole number; write 32,64.'),
            ("saved labels.csv --widths 8,17", "widths has 17; the model's vectors are 16 wide."),
            ("saved labels.csv --per-query a.txt", "per-query results are written as .csv or .jsonl."),
            ("saved labels.csv --per-query gone/a.csv", "gone/a.csv cannot be written: there is no folder"),
            ("saved", "Missing argument 'DATA'"),
            ("saved labels.csv --verbose-please", "--verbose-please"),
        ],
    )
    @pytest.mark.usefixtures("place")
    def test_says_what_is_wrong(self, arguments: str, expected: str) -> None:
        assert_fails(run("evaluate", *arguments.split()), expected)
