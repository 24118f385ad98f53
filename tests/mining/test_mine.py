"""What is mined, against a loop over all of it; and that a run that was stopped writes the same bytes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import finetuner
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.forms import read_dataset
from finetuner_core.errors import DataError, FolderError, OptionError
from finetuner_core.interfaces import CrossEncoder
from finetuner_core.mining import choose, stages
from finetuner_core.mining.work import Records

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sings", "runs", "over", "house", "tree", "q", "z", "old"]

Scorer = Callable[[str, str], float]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every stage has several."""
    for name, size in (("_ENCODED", 16), ("_SEARCHED", 8), ("_DOCUMENTS", 16), ("_RESCORED", 4)):
        monkeypatch.setattr(stages, name, size)
    monkeypatch.setattr(choose, "_AT_ONCE", 8)


@pytest.fixture
def model(acme: None) -> finetuner.EmbeddingModel:
    torch.manual_seed(0)
    return finetuner.build_model("letters", pretrained=False)


def texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, 6))) for _ in range(count)]


ROWS = list(zip(texts(40, 1), texts(40, 2), strict=True))
# An anchor with two positives, a positive of two anchors, a row twice, a turned pair, a pair of equal texts.
ROWS += [(ROWS[0][0], "a second one"), ("another", ROWS[1][1]), ROWS[2], (ROWS[3][1], ROWS[3][0]), ("same", "same")]
CORPUS = [*texts(30, 3), ROWS[5][1], ROWS[6][0]]


def dataset(rows: Sequence[tuple[str, ...]] = ROWS) -> Dataset:
    return Dataset(tuple(Column(f"c{n}", "text", list(items)) for n, items in enumerate(zip(*rows, strict=True))))


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def by_loop(scorer: Scorer, again: Scorer, top_k: int, skip: int, margin: float, count: int) -> list[tuple[str, ...]]:
    """Rows as they are to be written, found by looking at every document for every row."""
    documents = list(dict.fromkeys([positive for _, positive in ROWS] + CORPUS))
    written = []
    for anchor, positive in dict.fromkeys(ROWS):
        if anchor == positive:
            continue
        known = {p for a, p in ROWS if a == anchor} | {a for a, p in ROWS if p == anchor} | {anchor}
        ranked = sorted((text for text in documents if text not in known), key=lambda text: -scorer(anchor, text))
        limit = (1 - margin) * again(anchor, positive)
        left = [text for text in ranked[skip:top_k] if again(anchor, text) < limit]
        left.sort(key=lambda text: -again(anchor, text))
        if len(left) >= count:
            written.append((anchor, positive, *left[:count]))
    return written


def cosine(model: finetuner.EmbeddingModel) -> Scorer:
    every = list(dict.fromkeys([text for row in ROWS for text in row] + CORPUS))
    vectors = dict(zip(every, model.encode(every, side="query").astype(np.float64), strict=True))
    return lambda query, text: float(vectors[query] @ vectors[text])


class Letters(CrossEncoder):
    """The share of the letters of both that they have in common."""

    def score(self, queries: Sequence[str], documents: Sequence[str], batch_size: int) -> Tensor:
        return torch.tensor([shared(query, text) for query, text in zip(queries, documents, strict=True)])


def shared(query: str, text: str) -> float:
    # The length tells ties apart.
    return len({*query} & {*text}) / len({*query} | {*text}) + len(text) / 1000 + sum(map(ord, text)) / 1e6


@pytest.mark.parametrize(("top_k", "skip", "margin"), [(40, 0, 0.01), (30, 3, 0.0), (75, 0, 0.3)])
def test_against_a_loop(model: finetuner.EmbeddingModel, tmp_path: Path, top_k: int, skip: int, margin: float) -> None:
    scorer = cosine(model)
    expected = by_loop(scorer, scorer, top_k, skip, margin, 2)
    assert 5 < len(expected) < len(ROWS)
    result = finetuner.mine(
        model,
        dataset(),
        tmp_path / "mined.csv",
        corpus=Column("more", "text", CORPUS),
        negatives=2,
        top_k=top_k,
        skip_top=skip,
        relative_margin=margin,
        scores=True,
        quiet=True,
    )
    rows = read(tmp_path / "mined.csv")
    header = ["anchor", "positive", "negative_1", "negative_2", "score_1", "score_2", "score_3"]
    assert list(rows[0]) == header
    assert [tuple(row.values())[:4] for row in rows] == expected
    for row in rows:
        for number, name in enumerate(header[1:4], 1):
            assert float(row[f"score_{number}"]) == pytest.approx(scorer(row["anchor"], row[name]), abs=1e-5)
    assert (result.rows, result.negatives) == (len(expected), 2 * len(expected))
    assert result.short == len(dict.fromkeys(ROWS)) - 1 - len(expected)
    scores = np.array([[float(row[f"score_{number}"]) for number in (1, 2, 3)] for row in rows])
    assert result.positive_score == pytest.approx(scores[:, 0].mean())
    assert result.negative_score == pytest.approx(scores[:, 1:].mean())


def test_a_cross_encoder_scores_the_candidates_anew(model: finetuner.EmbeddingModel, tmp_path: Path) -> None:
    expected = by_loop(cosine(model), shared, 12, 1, 0.1, 2)
    finetuner.mine(
        model,
        dataset(),
        tmp_path / "mined.csv",
        corpus=Column("more", "text", CORPUS),
        negatives=2,
        top_k=12,
        skip_top=1,
        relative_margin=0.1,
        cross_encoder=Letters(),
        scores=True,
        quiet=True,
    )
    rows = read(tmp_path / "mined.csv")
    assert [tuple(row.values())[:4] for row in rows] == expected
    assert float(rows[0]["score_1"]) == pytest.approx(shared(rows[0]["anchor"], rows[0]["positive"]), abs=1e-6)


def test_labelled_items_get_a_positive_of_their_label_and_negatives_of_others(
    model: finetuner.EmbeddingModel, tmp_path: Path
) -> None:
    items = list(dict.fromkeys(texts(40, 4)))
    labels = [str(number % 4) for number in range(len(items))]
    data = Dataset((Column("text", "text", items),), labels)
    finetuner.mine(model, data, tmp_path / "a.jsonl", top_k=40, relative_margin=None, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["anchor"] for row in rows] == items
    vectors = model.encode(items)
    label_of, place = dict(zip(items, labels, strict=True)), {item: at for at, item in enumerate(items)}
    for row in rows:
        own = label_of[row["anchor"]]
        assert row["positive"] != row["anchor"]
        assert label_of[row["positive"]] == own
        scores = vectors @ vectors[place[row["anchor"]]]
        others = sorted((item for item in items if label_of[item] != own), key=lambda item: -scores[place[item]])
        assert [row[f"negative_{number}"] for number in (1, 2, 3)] == others[:3]


def test_what_is_written_is_data_to_train_on(model: finetuner.EmbeddingModel, tmp_path: Path) -> None:
    finetuner.mine(model, dataset(), tmp_path / "a.csv", relative_margin=None, quiet=True)
    mined = read_dataset(tmp_path / "a.csv", model.info)
    assert mined.summary() == "43 pairs of texts with 3 hard negatives"
    finetuner.mine(model, dataset(), tmp_path / "a.csv", relative_margin=None, scores=True, quiet=True)
    mined = read_dataset(tmp_path / "a.csv", model.info)
    assert (mined.form, len(mined.columns)) == ("scored", 5)
    # A mapping takes the pairs alone.
    read_again = tmp_path / "b.csv"
    columns = {"anchor": "anchor", "positive": "positive"}
    assert finetuner.mine(model, tmp_path / "a.csv", read_again, columns=columns, quiet=True).rows


def test_vectors(acme: None, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    model = finetuner.build_model("numbers", input_size=4)
    data = Dataset((Column("a", "vector", vectors[:15]), Column("b", "vector", vectors[15:])))
    finetuner.mine(model, data, tmp_path / "a.jsonl", relative_margin=None, quiet=True)
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[3])
    assert np.float32(row["anchor"]).tolist() == vectors[3].tolist()
    assert row["negative_1"] in vectors[15:].tolist()
    assert list(row) == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]


def test_images_for_texts(acme: None, tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    (tmp_path / "bad.png").write_text("no image")
    data = Dataset((Column("q", "text", texts(9, 5)), Column("d", "image", [*paths, tmp_path / "bad.png"])))
    model = finetuner.build_model("both")
    with pytest.raises(DataError, match=r"bad\.png"):
        finetuner.mine(model, data, tmp_path / "a.csv", quiet=True)
    result = finetuner.mine(model, data, tmp_path / "a.csv", relative_margin=None, skip_bad_items=True, quiet=True)
    rows = read(tmp_path / "a.csv")
    assert list(rows[0]) == ["text", "image", "negative_1", "negative_2", "negative_3"]
    assert (result.rows, rows[2]["image"]) == (8, "2.png")
    assert read_dataset(tmp_path / "a.csv", model.info).summary() == "8 text-image pairs with 3 hard negatives"
    with pytest.raises(OptionError, match="A cross-encoder reads a query and a document as texts"):
        finetuner.mine(model, data, tmp_path / "a.csv", cross_encoder=Letters(), skip_bad_items=True, quiet=True)


def test_files_in_another_encoding(model: finetuner.EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("anchor,positive\n" + "".join(f"é{n},ü{n}\n" for n in range(6)), "cp1252")
    (tmp_path / "more.txt").write_text("ö\nä\n", "cp1252")
    finetuner.mine(
        model, tmp_path / "a.csv", tmp_path / "b.csv", corpus=tmp_path / "more.txt", relative_margin=None,
        encoding="cp1252", quiet=True,
    )  # fmt: skip
    letters = set("".join(cell for row in read(tmp_path / "b.csv") for cell in row.values()))
    assert {"é", "ü"} <= letters <= {*"éüöä0123456789"}


def test_images_that_cannot_be_written_are_refused_before_the_work(acme: None, tmp_path: Path) -> None:
    images = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in range(6)]
    data = Dataset((Column("image", "image", images),), ["a", "a", "a", "b", "b", "b"])
    with pytest.raises(DataError, match=r"no file of its own \(Image\)"):
        finetuner.mine("pixels", data, tmp_path / "a.csv", quiet=True)
    assert not (tmp_path / ".a.csv.mining").exists()


def test_the_same_pairs_in_another_order_are_not_given_the_scores_of_before(
    model: finetuner.EmbeddingModel, tmp_path: Path
) -> None:
    # Queries, documents and known pairs are the same, each in the same order.
    rows = [("red cat", "a red cat"), ("old tree", "the tree"), ("red cat", "the tree")]
    reordered = [rows[0], rows[2], rows[1]]
    more: dict[str, Any] = {"corpus": Column("more", "text", CORPUS), "scores": True, "quiet": True}
    with pytest.raises(DataError, match="No row has 3 negatives left"):
        finetuner.mine(model, dataset(rows), tmp_path / "a.csv", min_score=2, **more)
    finetuner.mine(model, dataset(reordered), tmp_path / "a.csv", relative_margin=None, **more)
    finetuner.mine(model, dataset(reordered), tmp_path / "b.csv", relative_margin=None, **more)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def arguments(**settings: Any) -> dict[str, Any]:
    given = {"negatives": 2, "top_k": 12, "relative_margin": 0.01, "sampling": "random", "scores": True}
    return {**given, "corpus": Column("more", "text", CORPUS), "cross_encoder": Letters(), "quiet": True, **settings}


class Stopped(BaseException):
    """What a run is stopped with."""


def stop_after(writes: int, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    """The run writes so many blocks and half of another, and is then stopped."""
    real, done = Records.append, 0

    def append(records: Records, rows: np.ndarray) -> None:
        nonlocal done
        done += 1
        if done > writes:
            with records.path.open("ab") as file:
                content = np.ascontiguousarray(rows, records.dtype).tobytes()
                file.write(content[: len(content) // 2 + 1])
            stop()
        real(records, rows)

    monkeypatch.setattr(Records, "append", append)


@pytest.mark.parametrize("writes", [0, 1, 5, 7, 9, 12, 15, 17, 19, 24, 29, 31])
def test_a_run_that_was_stopped_goes_on(
    model: finetuner.EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    whole, file = tmp_path / "whole.csv", tmp_path / "mined.csv"
    finetuner.mine(model, dataset(), whole, **arguments())

    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        stop_after(writes, patched, stop)
        with pytest.raises(Stopped):
            finetuner.mine(model, dataset(), file, **arguments())
    assert not file.exists()
    encoded: list[object] = []
    real = finetuner.EmbeddingModel.encode_and_count

    def encode(self: finetuner.EmbeddingModel, items: Sequence[object], **settings: Any) -> tuple[np.ndarray, int]:
        encoded.extend(items)
        return real(self, items, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(finetuner.EmbeddingModel, "encode_and_count", encode)
        finetuner.mine(model, dataset(), file, **arguments())
    assert file.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "site") == ["mined.csv", "whole.csv"]
    # 9 blocks of vectors and their rests: what was written whole is not encoded again.
    assert (len(encoded) == 0) == (writes >= 9)


def test_a_killed_process(acme: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = finetuner.build_model("letters", pretrained=False)
    model.save(tmp_path / "model")
    with (tmp_path / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("anchor", "positive"), *ROWS])
    finetuner.mine(model, tmp_path / "data.csv", tmp_path / "whole.csv", top_k=9, quiet=True)
    code = """
        import os, signal, sys
        import numpy as np
        import finetuner
        from finetuner_core.mining import stages
        from finetuner_core.mining.work import Records
        for name, size in (("_ENCODED", 16), ("_SEARCHED", 8), ("_DOCUMENTS", 16)):
            setattr(stages, name, size)
        real, left = Records.append, [int(sys.argv[1])]
        def append(records, rows):
            left[0] -= 1
            if left[0] < 0:
                real(records, rows[: len(rows) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            real(records, rows)
        Records.append = append
        finetuner.mine("./model", "data.csv", "mined.csv", top_k=9, quiet=True)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}

    def run(writes: int) -> int:
        command = [sys.executable, "-c", dedent(code), str(writes)]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode

    assert run(2) == run(5) == -signal.SIGKILL  # while documents are encoded, then a query block
    assert not (tmp_path / "mined.csv").exists()
    assert run(1000) == 0
    assert (tmp_path / "mined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / ".mined.csv.mining").exists()


def leave_work(model: finetuner.EmbeddingModel, file: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        stop_after(20, patched, stop)
        with pytest.raises(Stopped):
            finetuner.mine(model, dataset(), file, **arguments(**settings))


def test_other_weights_data_or_batches_start_anew_and_it_says_so(
    model: finetuner.EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mined.csv"
    changed = finetuner.build_model("letters", pretrained=False)
    for build, data, settings, what in (
        (model, dataset(), {}, "Going on  with what is in"),
        (model, dataset(), {"negatives": 1, "skip_top": 2, "top_k": 20}, "Going on  with what is in"),
        (changed, dataset(), {}, "Anew      model changed since"),
        (model, dataset(ROWS[1:]), {}, "Anew      data changed since"),
        (model, dataset(), {"corpus": None}, "Anew      data changed since"),
        (model, dataset(), {"batch_size": 3}, "Anew      batch_size changed since"),
    ):
        leave_work(model, file, monkeypatch)
        finetuner.mine(build, data, file, **arguments(quiet=False, **settings))
        assert what in capsys.readouterr().err
        written = file.read_bytes()
        finetuner.mine(build, data, tmp_path / "whole.csv", **arguments(**settings))
        assert written == (tmp_path / "whole.csv").read_bytes()


def test_what_is_said(model: finetuner.EmbeddingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = finetuner.mine(model, dataset(), tmp_path / "mined.csv", relative_margin=0.1, top_k=30)
    lines = {line[:9].rstrip(): line[10:] for line in capsys.readouterr().err.splitlines()}
    assert lines["Data"] == "43 different queries, 43 rows, 43 different texts to search"
    assert lines["Left out"] == "1 rows whose positive is equal to their anchor, 1 rows that stood there before"
    assert lines["Excluded"].startswith("43 known to belong to the query, 4 the same as the query, ")
    assert f"{result.short} rows had too few negatives left" in lines["Short"]
    assert lines["Written"] == f"{result.rows} rows with {result.negatives} negatives to {tmp_path / 'mined.csv'}"
    finetuner.mine(model, dataset(), tmp_path / "mined.csv", relative_margin=None)
    assert "mined.csv, which replaces the one before" in capsys.readouterr().err


def test_texts_that_are_cut_are_counted_once(
    install_plugin: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install_plugin("toy", target="toy.plugin")
    model = finetuner.build_model("words", pretrained=False)
    rows = [(f"query {number}", f"document {number} {'x' * 250 * (number % 2)}") for number in range(40)]
    finetuner.mine(model, dataset(rows), tmp_path / "a.csv", relative_margin=None, quiet=True)
    assert [record.getMessage()[:80] for record in caplog.records] == [
        "20 of 40 texts are longer than the 200 tokens that are read of each: their ends w"[:80]
    ]


@pytest.mark.parametrize(
    ("settings", "error", "expected"),
    [
        ({"relative_margin": 0.999}, DataError, "No row has 3 negatives left: .* within the relative margin"),
        ({"negatives": 45}, DataError, "There are 43 different documents to choose from, too few for 45 negatives"),
        ({"skip_top": 40}, DataError, "too few for 3 negatives behind the first 40"),
        ({"corpus": Column("c", "image", ["a.png"])}, DataError, "letters takes texts, and the column c holds images"),
        ({"out": "a.npy"}, FolderError, "must end in"),
        ({"split_column": "split"}, OptionError, "split_column tells rows of a file apart"),
        ({"sampling": "all"}, OptionError, "sampling"),
    ],
)
def test_says_what_is_wrong(
    model: finetuner.EmbeddingModel, tmp_path: Path, settings: dict[str, Any], error: type[Exception], expected: str
) -> None:
    out = tmp_path / settings.pop("out", "a.csv")
    with pytest.raises(error, match=expected):
        finetuner.mine(model, dataset(), out, quiet=True, **{"top_k": 50, **settings})
    assert not out.exists()


def test_the_data_are_not_written_over(model: finetuner.EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("anchor,positive\nx,y\n")
    with pytest.raises(FolderError, match="would be replaced"):
        finetuner.mine(model, tmp_path / "a.csv", tmp_path / "a.csv")
