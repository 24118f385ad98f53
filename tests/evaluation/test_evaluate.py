from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr, spearmanr

import finetuner
from finetuner_core.data.beir import take
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.findings import check_evaluable
from finetuner_core.data.search_set import Judgements, SearchSet
from finetuner_core.errors import DataError, FinetunerError, OptionError
from finetuner_core.evaluation.evaluate import evaluate
from finetuner_core.evaluation.metrics import DEFAULT, LABELLED
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel

pytestmark = pytest.mark.usefixtures("acme")


def words(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) + str(number) for number in range(count)]


def mean_metrics(rankings: Sequence[Sequence[bool]], *, any_relevant: bool) -> dict[str, float]:
    """The metrics of result lists, each item of which is relevant or not."""
    sums = dict.fromkeys(("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map"), 0.0)
    for found in rankings:
        total = sum(found)
        for k in (1, 5, 10):
            sums[f"recall@{k}"] += any(found[:k]) if any_relevant else sum(found[:k]) / total
        sums["mrr"] += 1 / (list(found).index(True) + 1)
        gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(found[:10], 1) if hit)
        sums["ndcg@10"] += gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(total, 10) + 1))
        sums["map"] += sum(sum(found[:rank]) / rank for rank, hit in enumerate(found, 1) if hit) / total
    return {name: value / len(rankings) for name, value in sums.items()}


def six(metrics: Mapping[str, float], part: str = "") -> dict[str, float]:
    """Those of the metrics that `mean_metrics` knows."""
    return {name: metrics[part + name] for name in DEFAULT}


def search(query: np.ndarray, documents: np.ndarray) -> list[int]:
    """Positions of the documents, nearest first."""
    scores = [float(np.dot(query.astype(np.float64), document.astype(np.float64))) for document in documents]
    return sorted(range(len(documents)), key=lambda position: -scores[position])


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_labelled_items_ask_for_those_of_their_label(batch_size: int | None) -> None:
    texts = words(40)
    # Some labels stand on one item: it is found among the others, and asks for nothing.
    labels = [str(number % 9 if number < 36 else number) for number in range(40)]
    model = build_model("letters")
    vectors = model.encode(texts)
    rankings = []
    for query in range(40):
        order = [other for other in search(vectors[query], vectors) if other != query]
        found = [labels[other] == labels[query] for other in order]
        if any(found):
            rankings.append(found)
    assert len(rankings) == 36
    metrics = evaluate(model, Dataset((Column("text", "text", texts),), labels), batch_size=batch_size)
    assert six(metrics) == pytest.approx(mean_metrics(rankings, any_relevant=True))
    assert list(metrics) == list(LABELLED)
    firsts = [sum(found[: sum(found)]) / sum(found) for found in rankings]
    assert metrics.per_query["r_precision"] == pytest.approx(firsts)
    assert (metrics.query_ids, metrics.left_out) == ([str(row) for row in range(36)], 4)


def naive_pairs(model: EmbeddingModel, data: Dataset) -> dict[str, float]:
    pairs = list(zip(*(column.items for column in data.columns), strict=True))
    queries, documents = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    anchors, positives = data.columns
    query_vectors = model.encode(queries, modality=anchors.modality)
    document_vectors = model.encode(documents, modality=positives.modality)
    rankings = [
        [(query, documents[position]) in pairs for position in search(vector, document_vectors)]
        for query, vector in zip(queries, query_vectors, strict=True)
    ]
    return mean_metrics(rankings, any_relevant=False)


def test_pairs_with_repeated_anchors_and_positives() -> None:
    rng = random.Random(3)
    questions, answers = words(12, 1), words(15, 2)
    asking, found = ([rng.choice(each) for _ in range(40)] for each in (questions, answers))
    columns = (Column("anchor", "text", asking), Column("positive", "text", found))
    assert len(set(zip(asking, found, strict=True))) < 40
    model = build_model("letters")
    metrics = evaluate(model, Dataset(columns))
    assert metrics == pytest.approx(naive_pairs(model, Dataset(columns)))
    # A query has the number of the row in which it stands first.
    assert metrics.query_ids == [str(asking.index(text)) for text in dict.fromkeys(asking)]
    assert metrics["recall@1"] < metrics["recall@10"] <= 1


def test_an_anchor_that_is_its_own_positive_is_found_first() -> None:
    texts = words(20)
    metrics = evaluate(
        build_model("letters"), Dataset((Column("anchor", "text", texts), Column("positive", "text", texts)))
    )
    assert metrics == dict.fromkeys(metrics, 1.0)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    return paths


def test_the_text_asks_for_the_image_and_the_image_for_the_text(images: list[Path]) -> None:
    captions = words(12)
    # Two captions of some images, and two images for one caption.
    rows = [*zip(captions, images, strict=False), *zip(captions[9:], images, strict=False), (captions[0], images[5])]
    data = Dataset(
        (
            Column("text", "text", [caption for caption, _ in rows]),
            Column("image", "image", [image for _, image in rows]),
        )
    )
    model = build_model("both")
    expected = naive_pairs(model, data)
    metrics = evaluate(model, data)
    assert six(metrics) == pytest.approx(expected)
    backwards = naive_pairs(model, Dataset(data.columns[::-1]))
    assert backwards != expected
    assert six(metrics, "image-to-text ") == pytest.approx(backwards)
    assert len(metrics) == 12
    assert len(metrics.per_query["image-to-text map"]) == 9


def test_images_in_memory_are_told_apart(images: list[Path]) -> None:
    pictures = [Image.open(path).convert("RGB") for path in images]
    columns = (Column("text", "text", words(9)), Column("image", "image", pictures))
    model = build_model("both")
    from_files = Dataset((columns[0], Column("image", "image", images)))
    assert evaluate(model, Dataset(columns)) == evaluate(model, from_files)


def test_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    labels = [str(number % 6) for number in range(30)]
    model = build_model("numbers", input_size=4)
    embedded = model.encode(vectors)
    rankings = [
        [labels[other] == labels[query] for other in search(embedded[query], embedded) if other != query]
        for query in range(30)
    ]
    data = Dataset((Column("vectors", "vector", vectors),), labels)
    assert six(evaluate(model, data)) == pytest.approx(mean_metrics(rankings, any_relevant=True))


def graded(queries: int, documents: int) -> SearchSet:
    """Graded judgements of texts; the last query has none."""
    rng = np.random.default_rng(5)
    asking, found = np.nonzero(rng.random((queries, documents)) < 0.2)
    kept = asking < queries - 1
    judgements = Judgements.of_triples(asking[kept], found[kept], rng.integers(0, 4, int(kept.sum())), queries)
    return SearchSet(
        Column("query", "text", words(queries, 1)),
        Column("document", "text", words(documents, 2)),
        judgements,
        [f"q{row}" for row in range(queries)],
        [f"d{row}" for row in range(documents)],
    )


def naive_ndcg(model: EmbeddingModel, data: SearchSet, k: int, width: int | None = None) -> dict[str, float]:
    query_vectors, document_vectors = (
        model.encode(column.items, width=width) for column in (data.queries, data.corpus)
    )
    values = {}
    for row, vector in enumerate(query_vectors[:-1]):
        judged = data.judgements.take(np.array([row]))
        grades = dict(zip(judged.documents.tolist(), judged.grades.tolist(), strict=True))
        ordered = [grades.get(position, 0) for position in search(vector, document_vectors)]
        gain, best = (
            sum(grade / math.log2(rank + 1) for rank, grade in enumerate(each[:k], 1))
            for each in (ordered, sorted(ordered, reverse=True))
        )
        values[f"q{row}"] = gain / best
    return values


def test_graded_search_with_chosen_metrics() -> None:
    model, data = build_model("letters"), graded(9, 60)
    metrics = evaluate(model, data, metrics=["ndcg@7", "precision@3"], batch_size=4)
    assert list(metrics) == ["ndcg@7", "precision@3"]
    assert dict(zip(metrics.query_ids, metrics.per_query["ndcg@7"], strict=True)) == pytest.approx(
        naive_ndcg(model, data, 7)
    )
    assert metrics.left_out == 1
    assert metrics["ndcg@7"] == pytest.approx(np.mean(list(naive_ndcg(model, data, 7).values())))


def test_widths_are_parts_and_cost_no_second_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = build_model("letters"), graded(9, 60)
    expected = {width: naive_ndcg(model, data, 10, width) for width in (4, 8)}
    real, encoded = EmbeddingModel.encode, []

    def encode(self: EmbeddingModel, items: object, **options: object) -> np.ndarray:
        encoded.append(items)
        return real(self, items, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddingModel, "encode", encode)
    metrics = evaluate(model, data, metrics=["ndcg@10"], widths=[8, 4])
    assert len(encoded) == 2
    assert list(metrics) == ["ndcg@10", "width 8 ndcg@10", "width 4 ndcg@10"]
    for width, values in expected.items():
        assert metrics.per_query[f"width {width} ndcg@10"] == pytest.approx(list(values.values()))
    for width in (0, 17):
        with pytest.raises(OptionError, match=f"widths has {width}; the model's vectors are 16 wide."):
            evaluate(model, data, widths=[4, width])


def test_queries_of_which_nothing_is_relevant_count_as_zero() -> None:
    data = SearchSet(
        Column("query", "text", ["one", "two"]),
        Column("document", "text", ["one", "two", "six"]),
        Judgements.of_triples(np.array([0, 1]), np.array([0, 1]), np.array([1, 0]), 2),
    )
    metrics = evaluate("letters", data)
    assert metrics.per_query["map"].tolist() == [1, 0]
    assert metrics.left_out == 0
    nothing = data.judgements._replace(grades=np.minimum(data.judgements.grades, 0))
    with pytest.raises(DataError, match="the data: no document is relevant to any query, so there is nothing to find"):
        evaluate("letters", SearchSet(data.queries, data.corpus, nothing))
    with pytest.raises(DataError, match="the data: no query has a judgement, so it is not known what to find"):
        evaluate("letters", SearchSet(data.queries, data.corpus, data.judgements.take(np.array([0, 0]))._replace(
            offsets=np.zeros(3, np.int64), documents=np.empty(0, np.int64), grades=np.empty(0, np.int64))))  # fmt: skip


class TestScored:
    def test_pairs(self) -> None:
        texts = words(30), words(30, 1)
        scores = np.random.default_rng(0).integers(0, 6, (30, 1)).astype(np.float32)
        data = Dataset((Column("a", "text", texts[0]), Column("b", "text", texts[1])), scores=scores)
        model = build_model("letters")
        cosines = (model.encode(texts[0]).astype(np.float64) * model.encode(texts[1])).sum(axis=1)
        metrics = evaluate(model, data, widths=[4])
        assert list(metrics) == ["spearman", "pearson", "width 4 spearman", "width 4 pearson"]
        assert metrics["spearman"] == pytest.approx(spearmanr(cosines, scores[:, 0]).statistic, abs=1e-9)
        assert metrics["pearson"] == pytest.approx(pearsonr(cosines, scores[:, 0]).statistic, abs=1e-9)
        low, high = metrics.interval("spearman")
        assert low < metrics["spearman"] < high
        assert list(evaluate(model, data, metrics=["pearson"])) == ["pearson"]

    def test_several_candidates(self) -> None:
        rng = np.random.default_rng(0)
        columns = tuple(Column(name, "text", words(12, seed)) for seed, name in enumerate("abcde"))
        scores = rng.integers(0, 4, (12, 4)).astype(np.float32)
        scores[3] = 2
        data = Dataset(columns, scores=scores)
        model = build_model("letters")
        anchors, *candidates = (model.encode(column.items).astype(np.float64) for column in columns)
        expected = [
            spearmanr([anchors[row] @ each[row] for each in candidates], scores[row]).statistic
            for row in range(12)
            if row != 3
        ]
        metrics = evaluate(model, data)
        assert metrics.per_query["spearman"] == pytest.approx(expected, abs=1e-9)
        assert "3" not in metrics.query_ids
        assert metrics.left_out == 1

    def test_refused(self) -> None:
        columns = (Column("a", "text", words(5)), Column("b", "text", words(5, 1)))
        data = Dataset(columns, scores=np.ones((5, 1), np.float32), source="my.csv")
        with pytest.raises(DataError, match=r"my\.csv: all scores are the same, so there is no order to compare with"):
            evaluate("letters", data)
        with pytest.raises(OptionError) as caught:
            evaluate("letters", data, metrics=["sperman"])
        assert str(caught.value) == (
            'There is no metric "sperman" of scored data. Did you mean "spearman"?\nThere are spearman and pearson.'
        )


def test_an_unknown_metric_is_said_before_anything_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuner_core.evaluation.evaluate.build_model", None)
    with pytest.raises(OptionError, match='Did you mean "recall@20"'):
        evaluate("letters", Dataset((Column("text", "text", ["a", "b"]),), ["x", "x"]), metrics=["recal@20"])


def write_beir(data: SearchSet, folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, column, ids in (("queries", data.queries, data.query_ids), ("corpus", data.corpus, data.corpus_ids)):
        every = range(len(column))
        texts = zip(take(ids or (), every), column.take(every), strict=True)
        lines = [json.dumps({"_id": own, "text": text}) for own, text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    rows = zip(data.judgements.queries, data.judgements.documents, data.judgements.grades, strict=True)
    lines = ["query-id\tcorpus-id\tscore", *(f"q{query}\td{document}\t{grade}" for query, document, grade in rows)]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(lines) + "\n")


def test_with_a_label_of_its_own_for_each_item_there_is_nothing_to_find() -> None:
    data = Dataset((Column("text", "text", ["a", "b", "c"]),), ["x", "y", "z"], "my.csv")
    for refusing in (lambda: check_evaluable(data), lambda: evaluate("letters", data)):
        with pytest.raises(DataError) as caught:
            refusing()
        assert str(caught.value) == (
            "my.csv: each of its 3 items has a label of its own, so there is nothing to find.\n"
            "Evaluation needs labels with two items or more."
        )
    check_evaluable(data.select([0, 1, 0]))
    check_evaluable(Dataset(data.columns * 2))


class TestWhatIsTaken:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        texts = words(12)
        lines = [f"{text},{number % 3}" for number, text in enumerate(texts)]
        path = tmp_path / "data.csv"
        path.write_text("\n".join(["name,label", *lines]))
        return path

    def test_a_model_its_name_its_folder_and_a_file_or_the_data(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = build_model("letters")
        folder = model.save(tmp_path / "saved")
        columns = {"text": "name"}
        data = Dataset((Column("text", "text", words(12)),), [str(number % 3) for number in range(12)])
        expected = evaluate(model, data)
        monkeypatch.chdir(tmp_path)
        for named in (model, "letters", "acme/letters", str(folder), "./saved", folder, Path("saved")):
            assert evaluate(named, file, columns=columns) == expected
            assert finetuner.evaluate(named, str(file), columns=columns) == expected

    def test_a_path_that_is_no_model_is_no_name(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FinetunerError, match=str(tmp_path / "letters")):
            evaluate(Path("letters"), file, columns={"text": "name"})

    def test_rows_that_are_left_out_are_counted_where_they_are_searched(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [
            "text,label,part",
            *(f"{text},{n % 2},{'test' if n % 2 else 'train'}" for n, text in enumerate(words(8))),
        ]
        (tmp_path / "a.csv").write_text("\n".join([*rows, ",0,test", ",1,test", ",1,train", "zz,1,test", "yy,0,test"]))
        evaluate("letters", tmp_path / "a.csv", split_column="part", skip_bad_items=True)
        assert capsys.readouterr().err.splitlines()[0] == "Skipped 2 rows that cannot be used"

    def test_the_layout_of_beir(self, tmp_path: Path) -> None:
        data = graded(9, 60)
        write_beir(data, tmp_path / "beir")
        expected = evaluate("letters", data)
        for path in (tmp_path / "beir", str(tmp_path / "beir"), tmp_path / "beir" / "qrels" / "dev.tsv"):
            metrics = evaluate("letters", path)
            assert metrics == expected
            assert metrics.query_ids == expected.query_ids
        with pytest.raises(DataError, match=r"pixels takes images; .*beir has texts"):
            evaluate("pixels", tmp_path / "beir")
        with pytest.raises(OptionError, match="columns and split_column do not apply"):
            evaluate("letters", tmp_path / "beir", split_column="split")

    def test_data_of_another_modality(self, file: Path) -> None:
        with pytest.raises(DataError, match="pixels takes images"):
            evaluate("pixels", file)
        with pytest.raises(OptionError, match='pixels does not take "text"'):
            evaluate("pixels", Dataset((Column("text", "text", ["a", "b"]),), ["x", "x"]))

    def test_images_that_cannot_be_read(self, images: list[Path]) -> None:
        labels = [str(number % 2) for number in range(9)]
        expected = evaluate("pixels", Dataset((Column("image", "image", images[:8]),), labels[:8]))
        images[8].write_text("no image")
        data = Dataset((Column("image", "image", images),), labels)
        with pytest.raises(DataError, match="--skip-bad-items"):
            evaluate("pixels", data)
        assert evaluate("pixels", data, skip_bad_items=True) == expected


def test_a_vector_that_is_no_number_is_not_ranked() -> None:
    model = build_model("letters")
    next(model.parameters()).data.fill_(float("nan"))
    data = Dataset((Column("text", "text", ["ab", "cd", "ef", "gh"]),), ["x", "x", "y", "y"])
    with pytest.raises(DataError, match=r'4 of 4 items of text a vector of NaN, such as "ab"\.\nIts weights'):
        evaluate(model, data)


def test_an_image_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("image,label\ngone.png,a\ngone.png,a\n")
    with pytest.raises(DataError, match=r"a\.csv, line 2: The image .*gone\.png\" cannot be read"):
        evaluate("pixels", file)
