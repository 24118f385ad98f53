from __future__ import annotations

import copy
import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from finetuner_core.data.dataset import Column
from finetuner_core.errors import FolderError, OptionError
from finetuner_core.evaluation.measures import Correlation, Mean
from finetuner_core.evaluation.resampling import sign_flip
from finetuner_core.evaluation.result import Evaluation, compare

scipy_stats = pytest.importorskip("scipy.stats")


def evaluation(seed: int, rows: int = 40, parts: dict[str, Evaluation] | None = None) -> Evaluation:
    rng = np.random.default_rng(seed)
    measures = {name: Mean(rng.integers(0, 5, rows) / 4) for name in ("map", "mrr")}
    queries = Column("query", "text", [f'a "query", {row}\nü' for row in range(rows)])
    return Evaluation(measures, [f"q{row}" for row in range(rows)], queries=queries, parts=parts)


def test_it_is_a_dictionary_of_means() -> None:
    own = evaluation(0)
    assert list(own) == ["map", "mrr"]
    assert all(type(value) is float for value in own.values())
    for name, value in own.items():
        assert value == own.per_query[name].mean()
        assert own.per_query[name].shape == (40,)
    assert json.loads(json.dumps(own)) == own == dict(own)
    for copied in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert copied == own
        assert copied.interval("map") == own.interval("map")


def test_parts_have_their_name_before() -> None:
    inner = evaluation(1, 7)
    middle = evaluation(2, parts={"image-to-text": inner})
    whole = evaluation(3).with_parts({"width 64": middle})
    assert list(whole) == ["map", "mrr", "width 64 map", "width 64 mrr", "width 64 image-to-text map",
                           "width 64 image-to-text mrr"]  # fmt: skip
    assert whole["map"] == evaluation(3)["map"]
    assert whole["width 64 map"] == middle["map"]
    assert whole["width 64 image-to-text mrr"] == inner["mrr"]
    assert whole.interval("width 64 image-to-text map") == inner.interval("map")
    assert len(whole.per_query["width 64 image-to-text map"]) == 7
    assert whole.parts["width 64"].parts["image-to-text"].query_ids == inner.query_ids


def test_an_interval_of_what_was_not_measured() -> None:
    with pytest.raises(OptionError) as caught:
        evaluation(0).interval("mpa")
    assert str(caught.value) == '"mpa" was not measured. Did you mean "map"?\nThere are map, mrr.'


def test_compared_are_the_same_queries() -> None:
    before, after = evaluation(0), evaluation(1)
    gains = compare(before, after)
    assert list(gains) == ["map", "mrr"]
    for name, gain in gains.items():
        differences = after.per_query[name] - before.per_query[name]
        assert (gain.before, gain.after) == (before[name], after[name])
        assert gain.gain == pytest.approx(differences.mean())
        assert gain.p == sign_flip(differences[None])[0]
        expected = scipy_stats.bootstrap(
            (differences,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert gain.interval == pytest.approx(tuple(expected), abs=0.012)
        # Two that are measured on the same queries differ less by chance than two on their own do.
        assert gain.interval.low < gain.gain < gain.interval.high


def test_gains_of_parts_and_of_what_both_have() -> None:
    before = evaluation(0, parts={"width 8": evaluation(1), "width 4": evaluation(2)})
    after = evaluation(3, parts={"width 8": evaluation(4), "width 16": evaluation(5)})
    assert list(compare(before, after)) == ["map", "mrr", "width 8 map", "width 8 mrr"]


def test_a_gain_of_correlation() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 120).astype(float)
    cosines = [scores + rng.normal(size=120) * noise for noise in (6, 2)]
    ids = [str(row) for row in range(120)]
    before, after = (Evaluation({"spearman": Correlation(each, scores, ranked=True)}, ids) for each in cosines)
    gain = compare(before, after)["spearman"]
    expected = scipy_stats.bootstrap(
        (*cosines, scores),
        lambda x, y, z: scipy_stats.spearmanr(y, z).statistic - scipy_stats.spearmanr(x, z).statistic,
        paired=True, vectorized=False, method="percentile", n_resamples=2000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert gain.interval == pytest.approx(tuple(expected), abs=0.025)
    assert gain.interval.low > 0
    assert gain.p < 0.01


@pytest.mark.parametrize("part", [False, True])
def test_other_queries_are_not_compared(part: bool) -> None:
    for other in (evaluation(1, 39), Evaluation({"map": Mean(np.ones(40))}, [f"p{row}" for row in range(40)])):
        before, after = evaluation(0), other
        if part:
            before, after = evaluation(2, parts={"width 8": before}), evaluation(3, parts={"width 8": after})
        with pytest.raises(
            OptionError, match=f"not of the same queries in one order: 40 before, {len(other.query_ids)} "
        ):
            compare(before, after)


class TestWrite:
    def test_csv(self, tmp_path: Path) -> None:
        own = evaluation(0)
        assert own.write(tmp_path / "per_query.csv") == tmp_path / "per_query.csv"
        with (tmp_path / "per_query.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["id", "query", "map", "mrr"]
        assert [row["id"] for row in rows] == own.query_ids
        assert rows[3]["query"] == 'a "query", 3\nü'
        for name in own:
            assert [float(row[name]) for row in rows] == own.per_query[name].tolist()

    def test_jsonl(self, tmp_path: Path) -> None:
        own = evaluation(0, 9000)
        own.write(str(tmp_path / "per_query.jsonl"))
        rows = [json.loads(line) for line in (tmp_path / "per_query.jsonl").read_text("utf-8").splitlines()]
        assert rows == [
            {"id": f"q{row}", "query": f'a "query", {row}\nü'} | {name: own.per_query[name][row] for name in own}
            for row in range(9000)
        ]

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_rows_of_parts_follow(self, tmp_path: Path, suffix: str) -> None:
        inner = Evaluation({"map": Mean(np.array([0.25]))}, ["i0"], queries=Column("image", "image", [Path("a.png")]))
        own = evaluation(0, 2, {"width 8": evaluation(1, 2, {"image-to-text": inner})})
        file = own.write(tmp_path / f"all.{suffix}")
        if suffix == "csv":
            rows = list(csv.DictReader(file.read_text("utf-8").splitlines(keepends=True)))
        else:
            rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [(row["part"], row["id"]) for row in rows] == [
            ("", "q0"), ("", "q1"), ("width 8", "q0"), ("width 8", "q1"), ("width 8 image-to-text", "i0"),
        ]  # fmt: skip
        assert float(rows[2]["map"]) == own.per_query["width 8 map"][0]
        assert (rows[4]["query"], float(rows[4]["map"]), rows[4].get("mrr", "")) == ("a.png", 0.25, "")

    def test_what_a_file_cannot_hold_is_left_out(self, tmp_path: Path) -> None:
        vectors = Column("query", "vector", np.ones((2, 3), np.float32))
        own = Evaluation({"map": Mean(np.ones(2))}, ["a", "b"], queries=vectors)
        assert own.write(tmp_path / "a.csv").read_text() == "id,map\na,1.0\nb,1.0\n"
        assert Evaluation({"map": Mean(np.ones(1))}, ["a"]).write(tmp_path / "a.csv").read_text() == "id,map\na,1.0\n"

    def test_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = evaluation(0)
        (tmp_path / "folder.csv").mkdir()
        for name, expected in (
            ("a.txt", 'ends in ".txt"; per-query results are written as .csv or .jsonl.'),
            ("folder.csv", "folder.csv is a folder"),
            ("gone/a.csv", f"there is no folder {tmp_path / 'gone'}"),
        ):
            with pytest.raises(FolderError, match=expected):
                own.write(tmp_path / name)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        (tmp_path / "a.csv").write_text("old")
        monkeypatch.setattr(csv.DictWriter, "writeheader", full)
        with pytest.raises(FolderError, match=r"a.csv cannot be written: No space left on device\."):
            own.write(tmp_path / "a.csv")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "folder.csv"]
        assert (tmp_path / "a.csv").read_text() == "old"
