"""What is written, against `model.encode` and `numpy.save`; and that a run that was stopped writes the same bytes."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch

import finetuner
from finetuner_core.data.tables import read_table
from finetuner_core.encoding import encode as room
from finetuner_core.encoding.output import write_parquet
from finetuner_core.encoding.partial import Partial
from finetuner_core.encoding.quantize import dequantize
from finetuner_core.errors import DataError, FinetunerError, FolderError, OptionError

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sings", "runs", "over", "house"]
DTYPES = ("float32", "float16", "int8", "binary")


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(count)]


TEXTS = texts(100)


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows so small that there are several."""
    monkeypatch.setattr(room, "_WINDOW", {"text": 16, "image": 2, "vector": 16})
    monkeypatch.setattr(room, "_LEAST", 20)


@pytest.fixture
def model(acme: None) -> finetuner.EmbeddingModel:
    return finetuner.build_model("letters")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "data.csv").write_text("text,id\n" + "".join(f"{text},{row}\n" for row, text in enumerate(TEXTS)))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stopping(after: int, error: type[BaseException] | OSError) -> Callable[..., None]:
    """`Partial.append` that fails once so many blocks are written."""
    real, left = Partial.append, [after]

    def append(partial: Partial, block: np.ndarray, cut: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error
        real(partial, block, cut)

    return append


def stop(monkeypatch: pytest.MonkeyPatch, after: int, *arguments: Any, **settings: Any) -> str:
    """What is said where a run is stopped once so many blocks are written."""
    with monkeypatch.context() as context:
        context.setattr(Partial, "append", stopping(after, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) as caught:
            finetuner.encode(*arguments, quiet=True, **settings)
    return str(caught.value)


class TestWrites:
    def test_the_bytes_that_numpy_would(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        vectors = np.concatenate([model.encode(TEXTS[start : start + 16]) for start in range(0, 100, 16)])
        np.testing.assert_allclose(vectors, model.encode(TEXTS), rtol=0, atol=1e-6)
        result = finetuner.encode(model, place / "data.csv", place / "a.npy", quiet=True)
        assert result == finetuner.EncodingResult(place / "a.npy", 100, 16, "float32", 0)
        stream = io.BytesIO()
        np.save(stream, vectors)
        assert (place / "a.npy").read_bytes() == stream.getvalue()
        assert names(place) == ["a.npy", "data.csv"]

    def test_every_type_of_number(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        finetuner.encode(model, TEXTS, place / "float32.npy", quiet=True)
        vectors = np.load(place / "float32.npy")
        for dtype in DTYPES:
            result = finetuner.encode(model, TEXTS, place / f"{dtype}.npy", dtype=dtype, quiet=True)  # type: ignore[arg-type]
            ranges = result.ranges if dtype == "int8" else None
            written = np.load(place / f"{dtype}.npy")
            np.testing.assert_array_equal(written, finetuner.quantize(vectors, dtype, ranges))  # type: ignore[arg-type]
            assert result.width == 16
        assert result.ranges is None
        assert written.shape == (100, 2)
        sample = np.load(place / "int8.ranges.npy")
        # Of 100 items 20 are looked at, every fifth.
        np.testing.assert_allclose(sample, [vectors[::5].min(axis=0), vectors[::5].max(axis=0)], rtol=0, atol=1e-6)
        levels = np.load(place / "int8.npy")
        inside = ((vectors >= sample[0]) & (vectors <= sample[1])).all(axis=1)
        assert inside.sum() > 20
        step = (sample[1] - sample[0]) / 255
        assert (abs(dequantize(levels, sample) - vectors)[inside] <= step * 0.501).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_parquet(
        self, model: finetuner.EmbeddingModel, place: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        monkeypatch.setattr("finetuner_core.encoding.output._GROUP", 1 << 9)
        for name in ("a.npy", "b.parquet"):
            finetuner.encode(model, TEXTS, place / name, dtype=dtype, quiet=True)
        expected = np.load(place / "a.npy")
        table = pq.read_table(place / "b.parquet")
        kind = table.schema.field("vectors").type
        assert (table.column_names, kind.list_size) == (["vectors"], expected.shape[1])
        flat = table["vectors"].combine_chunks().flatten().to_numpy()
        assert flat.dtype == expected.dtype
        np.testing.assert_array_equal(flat.reshape(expected.shape), expected)
        assert pq.ParquetFile(place / "b.parquet").num_row_groups == -(-expected.nbytes // (1 << 9))
        np.testing.assert_array_equal(read_table(place / "b.parquet").columns["vectors"], expected)
        if dtype == "int8":
            assert (place / "a.ranges.npy").read_bytes() == (place / "b.ranges.npy").read_bytes()

    @pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8])
    def test_parquet_takes_no_more_bytes_than_the_numbers(self, place: Path, dtype: type[np.generic]) -> None:
        pytest.importorskip("pyarrow")
        numbers = np.random.default_rng(0).integers(0, 100, (3000, 96)).astype(dtype)
        np.save(place / "a.npy", numbers)
        write_parquet(place / "a.npy", place / "a.parquet")
        assert (place / "a.parquet").stat().st_size < 1.1 * numbers.nbytes

    def test_queries_are_quantised_as_their_corpus(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        corpus = finetuner.encode(model, TEXTS, place / "corpus.npy", dtype="int8", quiet=True)
        queries = finetuner.encode(
            model, TEXTS[40:43], place / "queries.npy", dtype="int8", ranges=corpus.ranges, quiet=True
        )
        np.testing.assert_allclose(np.load(queries.path), np.load(corpus.path)[40:43], rtol=0, atol=1)
        assert (place / "queries.ranges.npy").read_bytes() == (place / "corpus.ranges.npy").read_bytes()

    def test_items_of_every_kind(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        rows = [{"text": text, "id": row} for row, text in enumerate(TEXTS)]
        column = finetuner.Column("text", "text", TEXTS)
        model.save(place / "model")
        finetuner.encode(model, place / "data.csv", place / "a.npy", quiet=True)
        expected = (place / "a.npy").read_bytes()
        for number, (own, data) in enumerate(
            [(model, TEXTS), (model, tuple(TEXTS)), (model, rows), (model, column), (place / "model", TEXTS)]
        ):
            out = place / f"{number}.npy"
            finetuner.encode(own, data, out, quiet=True)  # type: ignore[arg-type]
            assert out.read_bytes() == expected
        finetuner.encode("letters", place / "data.csv", place / "c.npy", column="id", quiet=True)
        np.testing.assert_allclose(np.load(place / "c.npy"), model.encode([str(n) for n in range(100)]), atol=1e-6)

    def test_vectors_images_and_width(self, acme: None, place: Path) -> None:
        numbers = finetuner.build_model("numbers", input_size=3)
        vectors = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        finetuner.encode(numbers, vectors, place / "v.npy", width=4, quiet=True)
        np.testing.assert_allclose(np.load(place / "v.npy"), numbers.encode(vectors, width=4), rtol=0, atol=1e-6)
        from PIL import Image

        pictures = [Image.new("RGB", (20, 24), (40 * n, 9, 200 - 30 * n)) for n in range(5)]
        both = finetuner.build_model("both")
        finetuner.encode(both, pictures, place / "i.npy", modality="image", quiet=True)
        expected = both.encode(pictures, modality="image")
        np.testing.assert_allclose(np.load(place / "i.npy"), expected, rtol=0, atol=1e-6)

    def test_cut_texts_are_counted_over_all_windows(
        self, model: finetuner.EmbeddingModel, place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
    ) -> None:
        preprocess = model.preprocess("text")
        vars(preprocess).update(max_length=30, is_cut=lambda ids: len(ids) > 30)
        long = sum(len(text) > 30 for text in TEXTS)
        assert 20 < long < 80
        stop(monkeypatch, 3, model, TEXTS, place / "a.npy")
        with caplog.at_level(logging.WARNING, "finetuner"):
            assert finetuner.encode(model, TEXTS, place / "a.npy", quiet=True).cut == long
        assert f"{long} of 100 texts are longer than the 30 tokens" in caplog.text


class TestGoesOn:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("suffix", [".npy", ".parquet"])
    def test_where_it_was_stopped(
        self, model: finetuner.EmbeddingModel, place: Path, dtype: Any, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, out = place / f"whole{suffix}", place / f"out{suffix}"
        finetuner.encode(model, TEXTS, whole, dtype=dtype, quiet=True)
        said = stop(monkeypatch, 2, model, TEXTS, out, dtype=dtype)
        assert said == "Stopped at row 32 of 100: the same command goes on there."
        assert stop(monkeypatch, 3, model, TEXTS, out, dtype=dtype).startswith("Stopped at row 80 of 100")
        assert not out.exists()
        finetuner.encode(model, TEXTS, out, dtype=dtype, quiet=True)
        assert out.read_bytes() == whole.read_bytes()
        if dtype == "int8":
            assert out.with_suffix(".ranges.npy").read_bytes() == whole.with_suffix(".ranges.npy").read_bytes()
        assert not (place / f".out{suffix}.partial").exists()

    def test_what_is_done_is_not_done_again(
        self, model: finetuner.EmbeddingModel, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        stop(monkeypatch, 4, model, TEXTS, place / "a.npy", dtype="int8")
        seen: list[int] = []
        real = finetuner.EmbeddingModel.encode_and_count

        def encode_and_count(model: finetuner.EmbeddingModel, items: Any, **settings: Any) -> tuple[np.ndarray, int]:
            seen.append(len(items))
            return real(model, items, **settings)

        monkeypatch.setattr(finetuner.EmbeddingModel, "encode_and_count", encode_and_count)
        finetuner.encode(model, TEXTS, place / "a.npy", dtype="int8")
        assert seen == [1, 16, 16, 4]  # one says how wide they are; and none are looked at for their ranges
        first, last = capsys.readouterr().err.splitlines()
        assert first == f"Going on at row 64 of 100, with what is in {place / '.a.npy.partial'}"
        assert last == f"100 vectors of width 16 written as int8 to {place / 'a.npy'}, their ranges to a.ranges.npy"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that torch is imported once")
    def test_a_run_that_was_killed_wherever(self, acme: None, place: Path) -> None:
        model = finetuner.build_model("letters")
        model.save(place / "model")
        finetuner.encode(model, TEXTS, place / "whole.npy", dtype="int8", quiet=True)
        code = """
            import json, os, shutil, signal, sys
            from pathlib import Path
            import finetuner
            from finetuner_core.encoding import encode as room, partial
            room._WINDOW, room._LEAST = {"text": 16}, 20

            def killed(left):
                def counted(owner, name, what, before=None):
                    real = getattr(owner, name)
                    def call(*arguments, **settings):
                        left[what] -= 1
                        if left[what] < 0:
                            if before is not None:
                                before(real, *arguments)
                            os.kill(os.getpid(), signal.SIGKILL)
                        return real(*arguments, **settings)
                    setattr(owner, name, call)
                def half(append, partial, block, cut):
                    partial._record = lambda blocks: None
                    append(partial, block[:8], cut)
                for owner, name in ((Path, "replace"), (os, "fsync"), (shutil, "rmtree")):
                    counted(owner, name, "steps")
                counted(partial.Partial, "append", "blocks", half)

            model = finetuner.load("./model")
            for steps, blocks in json.loads(sys.argv[1]):
                child = os.fork()
                if child == 0:
                    killed({"steps": steps, "blocks": blocks})
                    finetuner.encode(model, "data.csv", "out.npy", dtype="int8", quiet=True)
                    os._exit(0)
                state = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                progress = Path(".out.npy.partial/progress.json")
                noted = len(json.loads(progress.read_text())["blocks"]) if progress.exists() else None
                there = [name for name in ("out.ranges.npy", "out.npy") if Path(name).exists()]
                print(json.dumps([state, noted, there]))
        """
        runs = [
            (3, 9),  # of all that is renamed, waited for and removed, the fourth is when the second block is noted
            (99, 2),  # in the middle of the fourth block
            (5, 9),  # when all are noted and on the disk, before the ranges are put in their place
            (2, 9),  # before the vectors are
            (2, 9),  # before the folder is removed
            (99, 9),
        ]
        command = [sys.executable, "-W", "ignore", "-c", dedent(code), json.dumps(runs)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, text=True)
        killed, both = -signal.SIGKILL, ["out.ranges.npy", "out.npy"]
        assert [json.loads(line) for line in done.stdout.splitlines()] == [
            [killed, 1, []],
            [killed, 3, []],
            [killed, 7, []],
            [killed, 7, both[:1]],
            [killed, 7, both],
            [0, None, both],
        ]
        assert (place / "out.npy").read_bytes() == (place / "whole.npy").read_bytes()
        assert (place / "out.ranges.npy").read_bytes() == (place / "whole.ranges.npy").read_bytes()
        assert not (place / ".out.npy.partial").exists()

    @pytest.mark.parametrize("point", ["ranges", "vectors", "removal"])
    def test_stopped_while_it_is_put_in_its_place(
        self, model: finetuner.EmbeddingModel, place: Path, point: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finetuner.encode(model, TEXTS, place / "whole.npy", dtype="int8", quiet=True)
        real = Path.replace

        def replace(path: Path, target: Path) -> Path:
            if path.name == f"{point}.npy":
                raise KeyboardInterrupt
            return real(path, target)

        def remove(partial: Partial) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as context:
            context.setattr(Path, "replace", replace)
            if point == "removal":
                context.setattr(Partial, "remove", remove)
            with pytest.raises(KeyboardInterrupt):
                finetuner.encode(model, TEXTS, place / "a.npy", dtype="int8", quiet=True)
        monkeypatch.setattr(Partial, "append", stopping(0, AssertionError))
        result = finetuner.encode(model, TEXTS, place / "a.npy", dtype="int8", quiet=True)
        assert (result.rows, result.ranges) == (100, place / "a.ranges.npy")
        for name in ("npy", "ranges.npy"):
            assert (place / f"a.{name}").read_bytes() == (place / f"whole.{name}").read_bytes()
        assert names(place) == ["a.npy", "a.ranges.npy", "data.csv", "whole.npy", "whole.ranges.npy"]

    def test_stopped_before_anything_was_written(
        self, model: finetuner.EmbeddingModel, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = stop(monkeypatch, 0, model, TEXTS, place / "a.npy")
        assert said == "Stopped at row 0 of 100, before any was kept."
        assert names(place) == ["data.csv"]

    @pytest.mark.parametrize("damage", ["progress", "vectors", "length", "header", "second block"])
    def test_what_cannot_be_relied_on_is_written_anew(
        self, model: finetuner.EmbeddingModel, place: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        finetuner.encode(model, TEXTS, place / "whole.npy", quiet=True)
        stop(monkeypatch, 3, model, TEXTS, place / "a.npy")
        folder = place / ".a.npy.partial"
        if damage == "progress":
            (folder / "progress.json").write_text('{"rows": 1')
        elif damage == "vectors":
            (folder / "vectors.npy").unlink()
        elif damage == "length":
            os.truncate(folder / "vectors.npy", 1000)
        else:  # as a disk may have it where the machine lost its power
            with (folder / "vectors.npy").open("r+b") as stream:
                stream.seek(0 if damage == "header" else 128 + 20 * 64)
                stream.write(bytes(64))
        finetuner.encode(model, TEXTS, place / "a.npy")
        said = "Going on at row 16 of 100" if damage == "second block" else "100 vectors"
        assert capsys.readouterr().err.startswith(said)
        assert (place / "a.npy").read_bytes() == (place / "whole.npy").read_bytes()


class TestRefuses:
    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"model": "both", "modality": "text"}, "model acme/letters (now acme/both), width 16 (now 8)"),
            ({"model": "other weights"}, "model acme/letters (now with other content)"),
            ({"data": texts(100, 1)}, "data items in memory (now with other content)"),
            ({"data": TEXTS[:99]}, "data items in memory (now with other content)"),
            ({"data": "data.csv", "column": "id"}, "data items in memory (now data.csv, column id)"),
            ({"dtype": "int8"}, "dtype float32 (now int8)"),
            ({"width": 8}, "width 16 (now 8)"),
            ({"batch_size": 8}, "batch_size None (now 8)"),
            ({"side": "query"}, "side None (now query)"),
        ],
    )
    def test_the_beginning_of_something_else(
        self,
        model: finetuner.EmbeddingModel,
        place: Path,
        changed: dict[str, Any],
        expected: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(place)
        stop(monkeypatch, 3, model, TEXTS, place / "a.npy")
        before = {path: path.read_bytes() for path in (place / ".a.npy.partial").iterdir()}
        own: Any = model
        if changed.get("model") == "other weights":
            own = finetuner.build_model("letters", pretrained=False)
        elif "model" in changed:
            own = changed["model"]
        settings = {name: value for name, value in changed.items() if name not in ("model", "data")}
        with pytest.raises(FolderError) as caught:
            finetuner.encode(own, changed.get("data", TEXTS), place / "a.npy", quiet=True, **settings)
        first, cure = str(caught.value).splitlines()
        assert first == f"{place / '.a.npy.partial'} holds the beginning of other vectors: {expected}."
        assert cure == "Go on as they were begun, or remove that folder to begin anew."
        assert {path: path.read_bytes() for path in (place / ".a.npy.partial").iterdir()} == before

    def test_other_ranges(self, model: finetuner.EmbeddingModel, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ranges = np.stack([np.full(16, -1.0), np.full(16, 1.0)])
        stop(monkeypatch, 3, model, TEXTS, place / "a.npy", dtype="int8", ranges=ranges)
        for other, said in ((2 * ranges, "given (now with other content)"), (None, "given (now calibrated)")):
            with pytest.raises(FolderError) as caught:
                finetuner.encode(model, TEXTS, place / "a.npy", dtype="int8", ranges=other, quiet=True)
            assert f"other vectors: ranges {said}." in str(caught.value)
        finetuner.encode(model, TEXTS, place / "a.npy", dtype="int8", ranges=ranges, quiet=True)
        np.testing.assert_array_equal(np.load(place / "a.ranges.npy"), ranges)

    def test_a_folder_of_something_else(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        (place / ".a.npy.partial").mkdir()
        (place / ".a.npy.partial" / "thesis.txt").write_text("mine")
        with pytest.raises(FolderError, match=r"and holds thesis\.txt\.\nMove it away"):
            finetuner.encode(model, TEXTS, place / "a.npy", quiet=True)
        assert (place / ".a.npy.partial" / "thesis.txt").read_text() == "mine"

    def test_its_own_data(self, place: Path, model: finetuner.EmbeddingModel) -> None:
        (place / "a.parquet").write_bytes(b"")
        with pytest.raises(FolderError, match="holds what is to be encoded, and would be replaced"):
            finetuner.encode(model, place / "a.parquet", place / "a.parquet", quiet=True)

    @pytest.mark.parametrize(
        ("data", "settings", "error", "expected"),
        [
            ([], {}, DataError, "There is nothing to encode: the data have no items."),
            (["one", 2], {}, DataError, 'Item 1 is a int, not a text: "2".'),
            (["one"], {"dtype": "int4"}, OptionError, 'dtype is "int4"'),
            (["one"], {"ranges": "r.npy"}, OptionError, "ranges are what int8 is counted in"),
            (["one"], {"dtype": "int8", "ranges": np.zeros((2, 3))}, OptionError, "ranges of vectors of width 16"),
            (["one"], {"modality": "image"}, OptionError, 'letters does not take "image".'),
            (["one"], {"width": 17}, OptionError, "width is 17; the model's vectors are 16 wide."),
            (["one"], {"side": "both"}, OptionError, 'side is "both"'),
            (["one"], {"batch_size": 0}, OptionError, "batch_size is 0"),
            (7, {}, DataError, "Data is a int, which is not read."),
        ],
    )
    def test_what_does_not_go(
        self,
        model: finetuner.EmbeddingModel,
        place: Path,
        data: Any,
        settings: dict[str, Any],
        error: type[FinetunerError],
        expected: str,
    ) -> None:
        with pytest.raises(error) as caught:
            finetuner.encode(model, data, place / "a.npy", quiet=True, **settings)
        assert expected in str(caught.value)
        assert names(place) == ["data.csv"]

    def test_an_embedding_that_is_not_finite(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        letters = model.encoder("text").extractor.network["letters_in"]  # type: ignore[index]
        with torch.no_grad():
            letters.weight[1 + ord("#")] = torch.nan  # type: ignore[union-attr]
        items = [*TEXTS[:40], "a # and more"]
        with pytest.raises(DataError, match=r"The embedding of item 40 is not finite: a # and more\.\nMend or remove"):
            finetuner.encode(model, items, place / "a.npy", quiet=True)
        assert names(place) == [".a.npy.partial", "data.csv"]

    def test_a_text_longer_than_all_others(self, model: finetuner.EmbeddingModel, place: Path) -> None:
        items = [*TEXTS[:20], "long " * 20_000]
        finetuner.encode(model, items, place / "a.npy", quiet=True)
        np.testing.assert_allclose(np.load(place / "a.npy")[20], model.encode([items[20]])[0], rtol=0, atol=1e-6)


class TestDisk:
    @pytest.mark.parametrize("error", [OSError(28, "Arrow's words"), OSError("Arrow's words")])
    def test_full_while_it_becomes_parquet(
        self, model: finetuner.EmbeddingModel, place: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("pyarrow")

        def write(vectors: Path, out: Path) -> None:
            out.write_bytes(b"half")
            raise error

        finetuner.encode(model, TEXTS, place / "whole.parquet", quiet=True)
        with monkeypatch.context() as context:
            context.setattr("finetuner_core.encoding.partial.write_parquet", write)
            with pytest.raises(FolderError) as caught:
                finetuner.encode(model, TEXTS, place / "a.parquet", quiet=True)
        assert str(caught.value) == (
            f"{place / 'a.parquet'} cannot be written: {'No space left on device' if error.errno else error}.\n"
            "The first 100 rows are kept: the same command goes on there."
        )
        assert names(place / ".a.parquet.partial") == ["progress.json", "vectors.npy"]
        finetuner.encode(model, TEXTS, place / "a.parquet", quiet=True)
        assert (place / "a.parquet").read_bytes() == (place / "whole.parquet").read_bytes()

    def test_too_small_from_the_start(
        self, model: finetuner.EmbeddingModel, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
        (place / "a.npy").write_text("old")
        with pytest.raises(FolderError) as caught:
            finetuner.encode(model, TEXTS * 100, place / "a.npy", quiet=True)
        assert str(caught.value) == (
            f"{place / 'a.npy'} cannot be written: No space left on device.\nThe vectors take 0.6 MB."
        )
        assert (names(place), (place / "a.npy").read_text()) == (["a.npy", "data.csv"], "old")

    @pytest.mark.parametrize("free", [0, 10**9])
    def test_one_that_cannot_set_space_aside(
        self, model: finetuner.EmbeddingModel, place: Path, free: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from collections import namedtuple

        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        usage = namedtuple("usage", "free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(free))
        if not free:
            with pytest.raises(FolderError, match="No space left on device"):
                finetuner.encode(model, TEXTS, place / "a.npy", quiet=True)
        else:
            finetuner.encode(model, TEXTS, place / "a.npy", quiet=True)
            assert np.load(place / "a.npy").shape == (100, 16)

    def test_full_in_the_middle(
        self, model: finetuner.EmbeddingModel, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finetuner.encode(model, TEXTS, place / "whole.npy", quiet=True)
        with monkeypatch.context() as context:
            context.setattr(Partial, "append", stopping(3, OSError(28, "No space left on device")))
            with pytest.raises(FolderError) as caught:
                finetuner.encode(model, TEXTS, place / "a.npy", quiet=True)
        assert str(caught.value) == (
            f"{place / 'a.npy'} cannot be written: No space left on device.\n"
            "The first 48 rows are kept: the same command goes on there."
        )
        finetuner.encode(model, TEXTS, place / "a.npy", quiet=True)
        assert (place / "a.npy").read_bytes() == (place / "whole.npy").read_bytes()
