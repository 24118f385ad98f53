"""Fine-tuning from beginning to end."""

from __future__ import annotations

import csv
import itertools
import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from acme.networks import LetterPreprocess
from PIL import Image

import finetuner_core
from finetuner_core.data.augment import augment
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.sources import TrainingSet
from finetuner_core.errors import DataError, FolderError, OptionError, PluginError, TrainingError, UnknownNameError
from finetuner_core.interfaces import Batch
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.modeling.build import build_model, load
from finetuner_core.training import wanted as wanted_module
from finetuner_core.training.fit import fit
from finetuner_core.training.result import FitResult

pytestmark = pytest.mark.usefixtures("acme")

InstallPlugin = Callable[..., None]

# Few steps at a high rate: the toy networks have little to forget.
FAST: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 0.03, "quiet": True, "device": "cpu"}


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def noisy(signal: str, rng: random.Random) -> str:
    """A signal of capital letters among more small ones that say nothing."""
    letters = list(signal + "".join(rng.choices(string.ascii_lowercase, k=8)))
    rng.shuffle(letters)
    return "".join(letters)


def signals(count: int) -> list[str]:
    return [first + second for first in string.ascii_uppercase for second in "PQRS"][:count]


def labelled_texts(folder: Path, classes: int = 10, each: int = 8) -> Path:
    rng = random.Random(0)
    rows = [[noisy(signal * 2, rng), signal] for signal in signals(classes) for _ in range(each)]
    return write_csv(folder / "texts.csv", ["text", "label"], rows)


def text_pairs(folder: Path) -> Path:
    rng = random.Random(0)
    rows = [[noisy(signal * 2, rng), noisy(signal * 2, rng)] for signal in signals(100)]
    return write_csv(folder / "pairs.csv", ["anchor", "positive"], rows)


def picture(green: int, rng: random.Random) -> Image.Image:
    """The label is in the green of a picture, beside a red that varies far more."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 20, (20, 20, 3))
    pixels[..., 0] += rng.randrange(230)
    pixels[..., 1] += green
    return Image.fromarray(pixels.astype(np.uint8))


def image_folder(folder: Path) -> Path:
    rng = random.Random(0)
    for label in range(6):
        (folder / "images" / f"green{label}").mkdir(parents=True)
        for number in range(10):
            picture(45 * label, rng).save(folder / "images" / f"green{label}" / f"{number}.png")
    return folder / "images"


def captioned_images(folder: Path) -> Path:
    rng = random.Random(0)
    (folder / "pictures").mkdir()
    rows = []
    for number in range(90):
        green = number % 30
        picture(8 * green, rng).save(folder / "pictures" / f"{number}.png")
        rows.append([f"{'G' * green}{'x' * (30 - green)}", f"pictures/{number}.png"])
    return write_csv(folder / "captions.csv", ["text", "image"], rows)


def vectors(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 10)
    noise = rng.normal(size=(80, 10)) * 3
    noise[:, :4] = rng.normal(size=(8, 4))[labels] + rng.normal(size=(80, 4)) / 10
    np.savez(folder / "vectors.npz", vectors=noise, labels=labels)
    return folder / "vectors.npz"


EASY: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any]]] = {
    "labelled texts": ("letters", labelled_texts, {}),
    "text pairs": ("letters", text_pairs, {"epochs": 15}),
    "a folder of images": ("pixels", image_folder, {}),
    "text with images": ("both", captioned_images, {"epochs": 10, "learning_rate": 0.1}),
    "vectors": ("numbers", vectors, {"epochs": 20}),
    "two towers": ("pixels", captioned_images, {"epochs": 10, "learning_rate": 0.1, "text_model": "letters"}),
    "two towers for texts": ("letters", text_pairs, {"epochs": 15, "text_model": "letters", "output_dim": 12}),
    "a trained pooling": ("letters", labelled_texts, {"pooling": "attention", "pooling_options": {"heads": 2}}),
}


@pytest.mark.parametrize("case", EASY)
def test_it_learns_to_search_and_saves_what_it_learnt(case: str, tmp_path: Path) -> None:
    name, make, settings = EASY[case]
    result = fit(name, make(tmp_path), out=tmp_path / "model", **FAST | settings)
    assert result.after["map"] > result.before["map"] + 0.15
    assert result.after["recall@5"] > result.before["recall@5"]
    assert result.before.keys() == result.after.keys() >= {"recall@1", "mrr", "ndcg@10"}
    assert [epoch["epoch"] for epoch in result.history] == list(range(1, len(result.history) + 1))
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert not result.model.training

    # The folder holds nothing that could be run, and the model that was trained.
    assert result.path == tmp_path / "model"
    files = {str(file.relative_to(result.path)) for file in result.path.rglob("*") if file.is_file()}
    files -= {"run/metrics.jsonl", "run/log.txt"}
    assert {Path(file).suffix for file in files} == {".json", ".md", ".safetensors"}
    saved = load(result.path)
    assert all(torch.equal(tensor, saved.state_dict()[key]) for key, tensor in result.model.state_dict().items())
    # Nothing else was left beside it.
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("case", ["labelled texts", "text pairs"])
def test_before_and_after_are_what_evaluate_says_of_the_same_data(case: str, tmp_path: Path) -> None:
    name, make, _ = EASY[case]
    train_data = make(tmp_path)
    with train_data.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    eval_data = write_csv(tmp_path / "eval.csv", header, rows[::3])
    before = finetuner_core.evaluate(build_model(name), eval_data)
    result = fit(name, train_data, eval_data, out=tmp_path / "model", **FAST | {"epochs": 1})
    assert result.before == before
    assert result.after == finetuner_core.evaluate(result.model, eval_data)
    assert result.after == finetuner_core.evaluate(str(result.path), eval_data)
    assert result.after != before


def test_what_was_done_is_written_down(tmp_path: Path) -> None:
    options = {"temperature": 0.2}
    result = fit("letters", labelled_texts(tmp_path), out=tmp_path / "model", loss_options=options, **FAST)
    assert result.path is not None
    record = json.loads((result.path / "training.json").read_text())
    assert record["evaluation"][0]["before"] == result.before
    assert record["evaluation"][0]["after"] == result.after
    assert record["history"] == result.history
    assert record["settings"].items() >= {"epochs": 6, "batch_size": 16, "seed": 0, "freeze": None}.items()
    assert record["learning_rate"] == 0.03
    assert record["data"][0]["loss"] == {
        "name": "infonce",
        "options": {"temperature": 0.2, "learnable": False, "symmetric": False},
    }
    assert record["data"][0]["train"].endswith("labelled texts in 10 classes")


def test_without_a_folder_nothing_is_saved(tmp_path: Path) -> None:
    data = labelled_texts(tmp_path)
    assert fit("letters", data, **FAST).path is None
    # The toy plugin is installed in the other one.
    assert {path.name for path in tmp_path.iterdir()} == {data.name, "site"}


def state(result: FitResult) -> list[torch.Tensor]:
    return list(result.model.state_dict().values())


def equal(a: FitResult, b: FitResult) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a), state(b), strict=True))


@pytest.mark.parametrize("case", ["labelled texts", "a folder of images"])
def test_all_of_it_follows_from_the_seed(case: str, tmp_path: Path) -> None:
    name, make, _ = EASY[case]
    data = make(tmp_path)
    settings = FAST | {"epochs": 1, "pretrained": False, "output_dim": 4}
    first = fit(name, data, **settings)
    torch.manual_seed(99)
    second, other = fit(name, data, **settings), fit(name, data, seed=1, **settings)
    assert equal(first, second)
    assert (first.before, first.after) == (second.before, second.after)
    assert not equal(first, other)


class TestWhatIsGiven:
    def test_a_saved_model_goes_on(self, tmp_path: Path) -> None:
        data = labelled_texts(tmp_path)
        first = fit("letters", data, out=tmp_path / "model", **FAST | {"epochs": 2, "output_dim": 6})
        second = fit(str(first.path), data, out=first.path, **FAST | {"epochs": 2})
        assert second.before == first.after
        assert second.model.output_dim == 6
        # It took the place of the first.
        assert second.path == first.path
        assert second.after == finetuner_core.evaluate(str(second.path), fit_data(data, second))

    def test_a_path_is_a_folder_however_it_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        build_model("letters", pooling="max").save(tmp_path / "letters")
        monkeypatch.chdir(tmp_path)
        data = labelled_texts(tmp_path)
        assert fit(Path("letters"), data, **FAST | {"epochs": 1}).model.pooling == "max"
        assert fit("letters", data, **FAST | {"epochs": 1}).model.pooling == "mean"

    def test_a_model_is_trained_in_place(self, tmp_path: Path) -> None:
        model = build_model("letters", pooling="max")
        before = [tensor.clone() for tensor in model.state_dict().values()]
        result = fit(model, labelled_texts(tmp_path), **FAST | {"epochs": 1})
        assert result.model is model
        assert not all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))

    @pytest.mark.parametrize(
        ("name", "value"), [("pooling", "cls"), ("output_dim", 4), ("model_options", {"dropout": 0.1})]
    )
    def test_what_a_model_already_has_is_refused(self, name: str, value: object, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=f"{name} cannot be set for a model that is already built"):
            fit(build_model("letters"), labelled_texts(tmp_path), **FAST, **{name: value})  # type: ignore[arg-type]

    def test_data_sets(self) -> None:
        rng = random.Random(0)

        def draw(count: int) -> Dataset:
            texts = [noisy(signal * 2, rng) for signal in signals(10) for _ in range(count)]
            return Dataset((Column("t", "text", texts),), [label for label in signals(10) for _ in range(count)])

        train_data, eval_data = draw(6), draw(3)
        result = fit("letters", train_data, eval_data, **FAST)
        assert result.after["map"] > result.before["map"] + 0.15
        assert result.after == finetuner_core.evaluate(result.model, eval_data)

    def test_a_split_column(self, tmp_path: Path) -> None:
        with labelled_texts(tmp_path).open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        marked = [[*row, "dev" if number % 4 == 0 else "train"] for number, row in enumerate(rows)]
        data = write_csv(tmp_path / "marked.csv", ["text", "label", "part"], marked)
        held_out = write_csv(tmp_path / "dev.csv", ["text", "label"], [row[:2] for row in marked[::4]])
        result = fit("letters", data, split_column="part", **FAST | {"epochs": 1})
        assert result.before == finetuner_core.evaluate(build_model("letters"), held_out)

    @pytest.mark.parametrize("extra", ["eval_data", "train_data"])
    def test_a_split_column_stands_alone(self, extra: str, tmp_path: Path) -> None:
        given: dict[str, Any] = {"train_data": labelled_texts(tmp_path), "split_column": "part"}
        given[extra] = Dataset((Column("t", "text", ["a", "b"]),), ["x", "x"])
        with pytest.raises(OptionError, match="split_column tells rows of one file apart"):
            fit("letters", **given, **FAST)

    @pytest.mark.parametrize("share", [0.25, 0.5])
    def test_a_share_is_held_out(self, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fit("letters", labelled_texts(tmp_path), val_split=share, **FAST | {"epochs": 1, "quiet": False})
        held_out = round(80 * share)
        if share == 0.5:  # half of ten classes are enough for whole ones
            assert f"Held out  {held_out} labelled texts in 5 classes (whole classes)" in capsys.readouterr().err
        else:
            assert f"Held out  {held_out} labelled texts in 10 classes" in capsys.readouterr().err

    def test_other_headers(self, tmp_path: Path) -> None:
        with text_pairs(tmp_path).open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        data = write_csv(tmp_path / "asked.csv", ["question", "answer"], rows)
        columns = {"anchor": "question", "positive": "answer"}
        plain = fit("letters", tmp_path / "pairs.csv", **FAST | {"epochs": 1})
        assert equal(fit("letters", data, columns=columns, **FAST | {"epochs": 1}), plain)

    def test_the_width_of_vectors_comes_from_them(self, tmp_path: Path) -> None:
        data = vectors(tmp_path)
        result = fit("numbers", data, **FAST | {"epochs": 1})
        layer = result.model.encoder("vector").extractor.get_submodule("network.numbers")
        assert isinstance(layer, torch.nn.Linear)
        assert layer.in_features == 10
        with pytest.raises(DataError, match="takes vectors of width 9"):
            fit("numbers", data, model_options={"input_size": 9}, **FAST)

    def test_options_of_the_model(self, tmp_path: Path) -> None:
        result = fit(
            "letters", labelled_texts(tmp_path), pooling="cls", output_dim=5, model_options={"dropout": 0.25},
            **FAST | {"epochs": 1},
        )  # fmt: skip
        drop = result.model.encoder("text").extractor.get_submodule("network.letters_drop")
        assert isinstance(drop, torch.nn.Dropout)
        assert (result.model.pooling, result.model.output_dim, drop.p) == ("cls", 5, 0.25)


def fit_data(path: Path, result: FitResult) -> Dataset:
    """The rows that a run with the default settings holds out."""
    from finetuner_core.data.forms import read_dataset
    from finetuner_core.data.split import hold_out

    return hold_out(read_dataset(path, result.model.info), 0.2, 0)[1]


class TestLoss:
    @pytest.mark.parametrize(
        ("loss", "options"),
        [
            ("triplet", {"margin": 0.3, "mining": "semihard"}),
            ("finetuner/contrastive", {"margin": "0.7"}),
            ("infonce", {"learnable": True}),
        ],
    )
    def test_by_its_name_with_its_options(self, loss: str, options: dict[str, object], tmp_path: Path) -> None:
        result = fit("letters", labelled_texts(tmp_path), loss=loss, loss_options=options, out=tmp_path / "m", **FAST)
        assert result.path is not None
        said = json.loads((result.path / "training.json").read_text())["data"][0]["loss"]
        assert said["name"] == loss
        assert {name: str(value) for name, value in options.items()}.items() <= {
            name: str(value) for name, value in said["options"].items()
        }.items()
        assert result.after["map"] > result.before["map"]

    @pytest.mark.parametrize(("case", "clip"), [("text with images", True), ("text pairs", False)])
    def test_text_with_images_gets_clips(self, case: str, clip: bool, tmp_path: Path) -> None:
        name, make, _ = EASY[case]
        result = fit(
            name, make(tmp_path), out=tmp_path / "m", loss_options={"symmetric": False}, **FAST | {"epochs": 1}
        )
        assert result.path is not None
        said = json.loads((result.path / "training.json").read_text())["data"][0]["loss"]
        expected = {"temperature": 0.07 if clip else 0.05, "learnable": clip, "symmetric": False}
        assert said == {"name": "infonce", "options": expected}

    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            ({"loss": "triplett"}, UnknownNameError, 'There is no loss "triplett". Did you mean "triplet"'),
            ({"loss_options": {"margin": 1}}, OptionError, 'loss infonce has no option "margin"'),
            (
                {"loss": "triplet", "loss_options": {"mining": "soft"}},
                OptionError,
                'mining is "soft"; allowed are hard',
            ),
        ],
    )
    def test_what_a_loss_is_not(
        self, settings: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words.replace(".", r"\.")):
            fit("letters", labelled_texts(tmp_path), **FAST, **settings)

    def test_of_another_plugin(self, tmp_path: Path, install_plugin: InstallPlugin) -> None:
        source = """
        from finetuner_core.plugin import LossInfo, hookimpl

        @hookimpl
        def list_losses():
            return [LossInfo("pull", "Pulls"), LossInfo("rubbish", "No loss")]

        @hookimpl
        def build_loss(info, dim):
            if info.name == "rubbish":
                return "rubbish"
            from pytorch_metric_learning.losses import ContrastiveLoss
            return ContrastiveLoss()
        """
        install_plugin("other", source)
        data = text_pairs(tmp_path)
        result = fit("letters", data, loss="pull", **FAST)
        assert result.history[-1]["loss"] < result.history[0]["loss"]
        with pytest.raises(PluginError, match='Plugin "other": build_loss gave "rubbish", not a module'):
            fit("letters", data, loss="rubbish", **FAST)


class TestImages:
    @staticmethod
    def spoil(folder: Path) -> Path:
        bad = sorted(folder.glob("*/*.png"))[7]
        bad.write_bytes(bad.read_bytes()[:60])
        return bad

    def test_a_bad_one_is_named_before_the_model_is_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = image_folder(tmp_path)
        bad = self.spoil(folder)
        monkeypatch.delattr(wanted_module, "build_model")
        with pytest.raises(DataError, match=f"{bad}.*cannot be read") as caught:
            fit("pixels", folder, **FAST)
        assert "--skip-bad-items" in str(caught.value)

    def test_a_bad_one_is_left_out_and_counted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = image_folder(tmp_path)
        self.spoil(folder)
        fit("pixels", folder, skip_bad_items=True, **FAST | {"epochs": 1, "quiet": False})
        assert "Skipped   1 row that cannot be used" in capsys.readouterr().err

    @pytest.mark.parametrize("how", ["none", "crop", "crop+mirror", "auto"])
    def test_augmenting(self, how: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[bool] = []

        def watch(images: Any, size: Any, generator: Any, *, mirror: bool) -> Any:
            seen.append(mirror)
            return augment(images, size, generator, mirror=mirror)

        monkeypatch.setattr("finetuner_core.training.feed.augment", watch)
        fit("pixels", image_folder(tmp_path), augment=how, **FAST | {"epochs": 1})
        assert set(seen) == {"none": set(), "crop": {False}, "crop+mirror": {True}, "auto": {True}}[how]

    @pytest.mark.parametrize("case", ["grey", "with texts"])
    def test_by_itself_it_mirrors_neither_grey_images_nor_those_with_texts(
        self, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if case == "grey":
            data = image_folder(tmp_path)
            for file in data.glob("*/*.png"):
                Image.open(file).convert("L").save(file)
        else:
            data = captioned_images(tmp_path)
        fit("pixels" if case == "grey" else "both", data, **FAST | {"epochs": 1, "quiet": False})
        assert "Images    cropped at random" in capsys.readouterr().err


class TestBeforeTheModelIsLoaded:
    """Whatever is wrong is said first, and leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def _model_must_not_be_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(wanted_module, "build_model")

    def refuses(self, error: type[Exception], words: str, tmp_path: Path, **given: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(error, match=words) as caught:
            fit(given.pop("model", "letters"), given.pop("data"), **{"out": tmp_path / "out"} | FAST | given)
        assert len(str(caught.value).splitlines()) <= 2
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_folder_that_holds_something_else(self, tmp_path: Path) -> None:
        data = labelled_texts(tmp_path)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        self.refuses(FolderError, "holds something else than a saved model", tmp_path, data=data)
        self.refuses(FolderError, "is a file", tmp_path, data=data, out=data)

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            ("text,label\n", "has a header .* and no rows"),
            ("", "is empty"),
            ("word,kind\na,b\n", "needs the columns text,label or anchor,positive"),
            ("text,label\na,b,c\n", "line 2: 3 fields where the header has 2"),
            ("text,label\na,\nb,c\n", "line 2: the label is empty"),
            ("text,label\na,x\nb,y\nc,z\n", "too few to hold out|a label of its own"),
            ("text,label\n" + "".join(f"a{n},x\n" for n in range(20)), "has 1 labels"),
            ("anchor,positive\n" + "".join(f"a{n},b{n}\n" for n in range(15)), "12 pairs .* fewer than a batch of 16"),
        ],
    )
    def test_bad_rows(self, rows: str, words: str, tmp_path: Path) -> None:
        data = tmp_path / "data.csv"
        data.write_text(rows)
        self.refuses(DataError, words, tmp_path, data=data)

    def test_evaluation_data_in_which_there_is_nothing_to_find(self, tmp_path: Path) -> None:
        held_out = write_csv(tmp_path / "eval.csv", ["text", "label"], [["a", "x"], ["b", "y"]])
        self.refuses(DataError, "a label of its own", tmp_path, data=labelled_texts(tmp_path), eval_data=held_out)

    def test_data_for_another_model(self, tmp_path: Path) -> None:
        self.refuses(DataError, "pixels takes images", tmp_path, data=labelled_texts(tmp_path), model="pixels")
        self.refuses(DataError, "There is no file or folder", tmp_path, data=tmp_path / "nothing.csv")

    @pytest.mark.parametrize("place", ["train", "eval"])
    def test_a_data_set_for_another_model(self, place: str, tmp_path: Path) -> None:
        images = Dataset((Column("i", "image", [picture(0, random.Random(0))] * 40),), ["x", "y"] * 20)
        given = {"data": images} if place == "train" else {"data": labelled_texts(tmp_path), "eval_data": images}
        self.refuses(DataError, "letters takes texts, and the column i holds images", tmp_path, **given)

    @pytest.mark.parametrize(
        ("name", "value"), [("epochs", 0), ("warmup", 2), ("schedule", "step"), ("val_split", 1.5), ("device", "gpu")]
    )
    def test_settings(self, name: str, value: object, tmp_path: Path) -> None:
        words = f'{name} .*"?{value}'
        self.refuses(OptionError, words, tmp_path, data=labelled_texts(tmp_path), **{name: value})

    def test_an_unknown_model(self, tmp_path: Path) -> None:
        self.refuses(UnknownNameError, "Did you mean", tmp_path, data=labelled_texts(tmp_path), model="lettters")


def test_what_fails_later_leaves_nothing_either(tmp_path: Path) -> None:
    data = labelled_texts(tmp_path)
    for settings, words in (
        ({"pooling": "native"}, "does not support the pooling"),
        ({"output_dim": 0}, "output_dim is 0"),
        ({"freeze": 5}, "freeze is 5"),
        ({"freeze": "backbone"}, "leaves nothing of letters to train"),
        ({"model_options": {"colour": 1}}, "no option"),
    ):
        with pytest.raises(OptionError, match=words):
            fit("letters", data, out=tmp_path / "out", **FAST | settings)
    assert not (tmp_path / "out").exists()


def test_what_was_recognised_is_said_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = FAST | {"epochs": 2, "quiet": False}
    result = fit("letters", labelled_texts(tmp_path), out=tmp_path / "model", **settings)
    captured = capsys.readouterr()
    labels = [line.split()[0] for line in captured.err.splitlines()]
    assert labels == ["Data", "Held", "Model", "Training", "Epoch", "Epoch", "Saved"]
    assert "60 labelled texts in 10 classes" in captured.err
    assert f"from {tmp_path / 'texts.csv'}" in captured.err
    assert "letters (acme), mean pooling, width 16" in captured.err
    assert "infonce loss (temperature 0.05," in captured.err
    assert captured.err.splitlines()[-1].endswith(str(tmp_path / "model"))
    header, _, *rows = captured.out.splitlines()
    assert header.split() == ["metric", "before", "after", "gain", "95%", "interval", "p"]
    assert [row.split()[0] for row in rows] == [*result.after]


def test_quiet_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit("letters", labelled_texts(tmp_path), out=tmp_path / "model", **FAST | {"epochs": 1})
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_labels_on_one_item_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled_texts(tmp_path)
    with data.open("a") as file:
        file.write("only,ONE\nlonely,TWO\n")
    fit("letters", data, **FAST | {"epochs": 1, "quiet": False})
    assert "Left out  2 labels that stand on one item only" in capsys.readouterr().err


def test_a_frozen_backbone_stays_bit_by_bit(tmp_path: Path) -> None:
    result = fit("pixels", image_folder(tmp_path), freeze="backbone", output_dim=6, **FAST)
    published = build_model("pixels").state_dict()
    trained = result.model.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in published.items())
    assert result.after != result.before


def test_by_default_what_is_new_learns_faster_than_what_is_pretrained(tmp_path: Path) -> None:
    def rate(model: str, data: Path, **settings: Any) -> float:
        result = fit(model, data, out=tmp_path / "m", **FAST | {"epochs": 1, "learning_rate": None} | settings)
        assert result.path is not None
        chosen: float = json.loads((result.path / "training.json").read_text())["learning_rate"]
        return chosen

    texts = labelled_texts(tmp_path)
    pretrained, scratch = rate("letters", texts), rate("letters", texts, pretrained=False)
    frozen = rate("letters", texts, freeze="backbone", output_dim=4)
    assert pretrained < scratch < frozen
    assert rate("letters", texts, learning_rate=0.5) == 0.5


def test_by_default_two_towers_are_trained_in_both_directions(tmp_path: Path) -> None:
    fit("letters", text_pairs(tmp_path), out=tmp_path / "model", text_model="letters", **FAST | {"epochs": 1})
    loss = json.loads((tmp_path / "model" / "training.json").read_text())["data"][0]["loss"]
    assert loss == {"name": "infonce", "options": {"temperature": 0.07, "learnable": True, "symmetric": True}}


def test_labels_do_not_tell_two_towers_for_texts_apart(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"data for it are pairs of both \(anchor, positive\)"):
        fit("letters", labelled_texts(tmp_path), text_model="letters", **FAST)


@pytest.mark.parametrize("adapter", [False, True])
def test_lora_is_trained_and_saved_merged_or_as_an_adapter(adapter: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs PEFT")
    settings = {"lora": 4, "lora_options": {"alpha": 8}, "adapter": adapter, "epochs": 14}
    result = fit("letters", labelled_texts(tmp_path), out=tmp_path / "model", **FAST | settings)
    assert result.after["map"] > result.before["map"] + 0.15
    assert (tmp_path / "model" / "adapter_model.safetensors").exists() is adapter
    texts = ["ab", "", "AQxyz"]
    np.testing.assert_allclose(load(tmp_path / "model").encode(texts), result.model.encode(texts), atol=1e-5)


def test_what_goes_with_lora_is_asked_for_with_it(tmp_path: Path) -> None:
    data = labelled_texts(tmp_path)
    with pytest.raises(OptionError, match="and lora, which asks for them, is not given"):
        fit("letters", data, lora_options={"alpha": 8}, **FAST)
    with pytest.raises(OptionError, match="letters has no adapter to save"):
        fit("letters", data, adapter=True, **FAST)


CLASSES = """
from finetuner_core.plugin import LossInfo, Option, hookimpl

@hookimpl
def list_losses():
    option = Option("num_classes", "int", help="How many.", required=True)
    return [LossInfo("proxies", "", (option,)), LossInfo("labels", "", (option,), forms=("labelled",))]

@hookimpl
def build_loss(info, dim, options):
    import torch
    class Proxies(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.proxies = torch.nn.Parameter(torch.randn(options["num_classes"], dim))
        def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
            return torch.nn.functional.cross_entropy(10 * embeddings @ self.proxies.T, labels)
    return Proxies()
"""


def test_a_loss_is_told_how_many_classes_labelled_data_has(tmp_path: Path, install_plugin: InstallPlugin) -> None:
    install_plugin("proxy", CLASSES)
    data = labelled_texts(tmp_path, classes=30)
    fit("letters", data, out=tmp_path / "model", loss="proxies", **FAST | {"epochs": 1})
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    # Of 30 classes 6 are held out.
    assert record["data"][0]["loss"]["options"] == {"num_classes": 24}
    with pytest.raises(OptionError, match="loss proxies needs the option num_classes"):
        fit("letters", text_pairs(tmp_path), loss="proxies", **FAST)
    with pytest.raises(DataError, match=r"The loss labels learns from labelled data, and .*pairs.csv holds pairs"):
        fit("letters", text_pairs(tmp_path), loss="labels", **FAST)


class Cutting(LetterPreprocess):
    """Reads four letters of each text."""

    max_length = 4

    def prepare(self, items: Sequence[object]) -> list[list[int]]:
        return [ids[:5] for ids in super().prepare(items)]

    def is_cut(self, prepared: list[int]) -> bool:
        return len(prepared) > 4

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        return super().collate([ids[:4] for ids in prepared])


def test_texts_that_are_cut_are_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("letters")
    model.tower("text").loaded = replace(model.tower("text").loaded, preprocess={"text": Cutting()})
    assert np.array_equal(model.encode(["abcdef"]), model.encode(["abcdxx"]))
    texts = [text for first in "abcd" for text in (f"{first}bc", f"{first}bcd", f"{first}bcde", f"{first}" + "Q" * 30)]
    data = Dataset((Column("text", "text", texts),), list("abcd") * 4)
    caplog.clear()
    fit(model, data, data, **FAST)
    said = "8 of 16 texts are longer than the 4 tokens that are read of each: their ends were left out"
    # Of the evaluation data, which is encoded before and after, and of the training data, which six epochs go through.
    items = json.loads("[" + caplog.messages[-1].split(" texts")[0].replace(" of ", ",") + "]")
    assert caplog.messages[0] == said
    assert len(caplog.messages) == 2
    assert items[0] * 2 == items[1]


def scored_pairs(folder: Path) -> Path:
    """Two texts are as near as their signals are: the same, one letter of two, or none."""
    rng = random.Random(0)
    rows = []
    for signal in signals(100):
        other = rng.choice([signal, signal[0] + "Z", "YX"])
        score = {signal: 5, signal[0] + "Z": 2.5}.get(other, 0)
        rows.append([noisy(signal * 2, rng), noisy(other * 2, rng), str(score)])
    return write_csv(folder / "scored.csv", ["sentence1", "sentence2", "score"], rows)


def triplets(folder: Path) -> Path:
    rng = random.Random(0)
    texts = [[noisy(signal * 2, rng) for _ in range(2)] for signal in signals(100)]
    rows = [[*pair, texts[(place + 1) % 100][1]] for place, pair in enumerate(texts)]
    return write_csv(folder / "triplets.csv", ["anchor", "positive", "negative"], rows)


def test_scored_pairs_are_learnt_in_their_order(tmp_path: Path) -> None:
    result = fit("letters", scored_pairs(tmp_path), out=tmp_path / "model", **FAST | {"epochs": 15})
    assert result.after["spearman"] > result.before["spearman"] + 0.1
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["data"][0]["loss"]["name"] == "cosent"


@pytest.mark.parametrize("loss", ["infonce", "triplet", "siglip"])
def test_hard_negatives(loss: str, tmp_path: Path) -> None:
    result = fit("letters", triplets(tmp_path), loss=loss, **FAST | {"epochs": 15})
    assert result.after["ndcg@10"] > result.before["ndcg@10"] + 0.1


def test_of_several_data_sets_each_is_measured_by_the_metrics_of_its_form(tmp_path: Path) -> None:
    sets = [TrainingSet(text_pairs(tmp_path), name="pairs"), TrainingSet(scored_pairs(tmp_path), name="scores")]
    result = fit("letters", sets, metrics=["mrr", "pearson"], **FAST)
    assert [[*each.after] for each in result.measured] == [["mrr"], ["pearson"]]
    result = fit("letters", sets, metrics=["mrr"], **FAST)
    assert [[*each.after] for each in result.measured] == [["mrr"], ["spearman", "pearson"]]
    with pytest.raises(OptionError, match='There is no metric "mr"'):
        fit("letters", sets, metrics=["mrr", "mr"], **FAST)


def test_several_data_sets_each_with_its_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [
        TrainingSet(text_pairs(tmp_path), weight=2, name="pairs"),
        TrainingSet(scored_pairs(tmp_path), weight=1, loss="cosine", loss_options={}, name="scores"),
    ]
    if_scored = {"loss": "infonce", "loss_options": {"temperature": 0.1}}
    result = fit("letters", sets, out=tmp_path / "model", **FAST | {"epochs": 12, "quiet": False} | if_scored)
    assert [each.name for each in result.measured] == ["pairs", "scores"]
    assert result.measured[0].after["map"] > result.measured[0].before["map"] + 0.15
    assert "spearman" in result.measured[1].after
    captured = capsys.readouterr()
    assert "infonce loss (temperature 0.1, learnable False, symmetric False) and cosine loss" in captured.err
    assert captured.out.count("gain") == 2
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert [each["loss"]["name"] for each in record["data"]] == ["infonce", "cosine"]
    assert [each["weight"] for each in record["data"]] == [2, 1]
    assert [each["after"] for each in record["evaluation"]] == [each.after for each in result.measured]


class TestInTheMiddle:
    def test_the_best_weights_are_those_that_come_back(self, tmp_path: Path) -> None:
        data = labelled_texts(tmp_path)
        result = fit("letters", data, out=tmp_path / "model", eval_every=2, **FAST | {"learning_rate": 0.3})
        values = [check.value for check in result.checks]
        assert len(values) >= 4
        assert result.after["map"] == max(values)
        model = load(tmp_path / "model")
        held_out = finetuner_core.evaluate(model, fit_data(data, result))
        assert held_out["map"] == pytest.approx(max(values))

    def test_it_ends_where_nothing_gets_better(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = FAST | {"learning_rate": 1e-12, "quiet": False, "epochs": 50}
        result = fit("letters", labelled_texts(tmp_path), eval_every=1, patience=3, **settings)
        assert len(result.checks) == 4
        assert len(result.history) == 1
        assert "Kept      the weights of step 1, " in capsys.readouterr().err

    def test_by_another_metric(self, tmp_path: Path) -> None:
        data = labelled_texts(tmp_path)
        result = fit("letters", data, eval_every=3, best_metric="recall@1", metrics=["recall@1", "mrr"], **FAST)
        assert result.after["recall@1"] == max(check.value for check in result.checks)
        assert [*result.after] == ["recall@1", "mrr"]

    def test_without_the_middle_there_is_no_best(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"best_metric chooses among weights.*give eval_every as well"):
            fit("letters", labelled_texts(tmp_path), best_metric="map", **FAST)

    def test_no_metric_is_refused_before_the_model_is_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(wanted_module, "build_model")
        with pytest.raises(OptionError, match='There is no metric "recal@5"'):
            fit("letters", labelled_texts(tmp_path), metrics=["recal@5"], **FAST)

    def test_by_the_first_that_is_measured_where_the_usual_one_is_not(self, tmp_path: Path) -> None:
        result = fit("letters", labelled_texts(tmp_path), eval_every=3, metrics=["mrr", "recall@1"], **FAST)
        assert result.after["mrr"] == max(check.value for check in result.checks)

    def test_a_metric_that_is_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r'best_metric is "mapp", which is not measured on .* Did you mean "map"'):
            fit("letters", labelled_texts(tmp_path), eval_every=3, best_metric="mapp", **FAST)


def test_each_width_of_a_matryoshka_is_trained_and_measured(tmp_path: Path) -> None:
    data = labelled_texts(tmp_path)
    plain, nested = (fit("letters", data, matryoshka=widths, metrics=["map"], **FAST) for widths in ((), (2, 4)))
    assert [*nested.after] == ["map", "width 4 map", "width 2 map"]
    assert nested.after["width 2 map"] > nested.before["width 2 map"] + 0.1
    short = finetuner_core.evaluate(plain.model, fit_data(data, plain), metrics=["map"], widths=[2])
    assert nested.after["width 2 map"] > short["width 2 map"]


def test_a_run_that_diverges_leaves_its_last_good_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count(1)
    real = InfoNCELoss.forward

    def break_down(self: InfoNCELoss, *given: Any, **more: Any) -> Any:
        return real(self, *given, **more) * (float("nan") if next(calls) == 4 else 1)

    monkeypatch.setattr(InfoNCELoss, "forward", break_down)
    out = tmp_path / "model"
    with pytest.raises(TrainingError, match=r"The loss became nan in step \d+ of epoch \d+, on the rows ") as caught:
        fit("letters", text_pairs(tmp_path), out=out, **FAST)
    kept = Path(str(caught.value).rsplit(" is in ")[1].rstrip("."))
    assert kept == tmp_path / "model-step-2"  # one call asked whether the loss takes the data
    assert np.isfinite(load(kept).encode(["apple"])).all()
    assert not out.exists()


def test_a_memory_of_past_batches(tmp_path: Path) -> None:
    result = fit("letters", text_pairs(tmp_path), memory=32, **FAST | {"epochs": 15})
    assert result.after["map"] > result.before["map"] + 0.15
    with pytest.raises(OptionError, match="cannot compare a batch with those before it"):
        fit("letters", scored_pairs(tmp_path), memory=32, **FAST)
