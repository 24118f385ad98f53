from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetuner
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import DataError, FinetunerError, OptionError
from finetuner_core.evaluation.evaluate import check_evaluable, evaluate
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
    assert metrics == pytest.approx(mean_metrics(rankings, any_relevant=True))


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
    columns = (
        Column("anchor", "text", [rng.choice(questions) for _ in range(40)]),
        Column("positive", "text", [rng.choice(answers) for _ in range(40)]),
    )
    assert len(set(zip(columns[0].items, columns[1].items, strict=True))) < 40
    model = build_model("letters")
    metrics = evaluate(model, Dataset(columns))
    assert metrics == pytest.approx(naive_pairs(model, Dataset(columns)))
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


def test_the_text_asks_for_the_image(images: list[Path]) -> None:
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
    assert evaluate(model, data) == pytest.approx(expected)
    backwards = Dataset(data.columns[::-1])
    assert naive_pairs(model, backwards) != expected


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
    assert evaluate(model, data) == pytest.approx(mean_metrics(rankings, any_relevant=True))


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
