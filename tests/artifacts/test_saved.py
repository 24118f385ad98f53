"""What `finetuner.json` says of a saved model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetuner_core.artifacts import saved as saved_module
from finetuner_core.artifacts.folder import FILE, is_saved_model, write_folder
from finetuner_core.artifacts.saved import (
    Base,
    SavedModel,
    SavedTowers,
    find_row,
    joined_row,
    read_saved,
    write_towers,
)
from finetuner_core.errors import FolderError, OptionError, UnknownNameError
from finetuner_core.values import BackboneInfo

SAVED = SavedModel(
    BackboneInfo(
        "hub/tiny",
        "text-to-text",
        64,
        "CNN",
        "Ein kleines Modell – klein",
        poolings=("mean",),
        licence="MIT",
        source="https://example.org/tiny",
        parameters=1234,
        namespace="toy",
    ),
    "mean",
    {"p": 2.5},
    32,
)


def write_model(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weights")
    SAVED.write(folder)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "saved", write_model)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / FILE
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


class TestSavedModel:
    @pytest.mark.parametrize("projection_dim", [None, 32])
    @pytest.mark.parametrize("base", [None, Base("toy/hub/tiny", {"size": 3}, "ab12")])
    def test_it_reads_what_it_wrote(self, projection_dim: int | None, base: Base | None, tmp_path: Path) -> None:
        saved = SavedModel(SAVED.info, "mean", {"p": 2.5}, projection_dim, base)
        saved.write(tmp_path)
        read = read_saved(tmp_path)
        assert read == saved
        assert isinstance(read, SavedModel)
        assert read.info.namespace == "toy"

    def test_a_person_can_read_it(self, saved: Path) -> None:
        assert json.loads((saved / FILE).read_text(encoding="utf-8")) == {
            "format_version": 1,
            "plugin": "toy",
            "backbone": {
                "name": "hub/tiny",
                "task": "text-to-text",
                "output_dim": 64,
                "architecture": "CNN",
                "description": "Ein kleines Modell – klein",
                "licence": "MIT",
                "source": "https://example.org/tiny",
                "parameters": 1234,
            },
            "pooling": "mean",
            "pooling_options": {"p": 2.5},
            "projection_dim": 32,
            "files": ["model.safetensors"],
        }
        assert "–" in (saved / FILE).read_text(encoding="utf-8")

    def test_a_folder_without_it(self, tmp_path: Path) -> None:
        assert not is_saved_model(tmp_path)
        with pytest.raises(FolderError, match=f"{tmp_path} holds no saved model: there is no finetuner.json"):
            read_saved(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', '{"format_version": 1', "\0", "{}"])
    def test_damaged(self, text: str, saved: Path) -> None:
        (saved / FILE).write_text(text)
        with pytest.raises(FolderError, match=r"finetuner.json cannot be read: \w+Error: "):
            read_saved(saved)

    def test_not_utf_8(self, saved: Path) -> None:
        (saved / FILE).write_bytes(b'{"format_version": "\xff"}')
        with pytest.raises(FolderError, match="cannot be read: UnicodeDecodeError"):
            read_saved(saved)

    @pytest.mark.parametrize("key", ["format_version", "plugin", "backbone", "pooling", "projection_dim"])
    def test_a_missing_key(self, key: str, saved: Path) -> None:
        edit(saved, lambda values: values.pop(key))
        with pytest.raises(FolderError, match=f"cannot be read: KeyError: '{key}'"):
            read_saved(saved)

    @pytest.mark.parametrize("key", ["name", "task", "output_dim", "licence"])
    def test_a_missing_field_of_the_row(self, key: str, saved: Path) -> None:
        edit(saved, lambda values: values["backbone"].pop(key))
        with pytest.raises(FolderError, match=f"KeyError: '{key}'"):
            read_saved(saved)

    @pytest.mark.parametrize("version", [2, 0, "1", None])
    def test_another_version(self, version: object, saved: Path) -> None:
        edit(saved, lambda values: values.update(format_version=version))
        with pytest.raises(FolderError) as caught:
            read_saved(saved)
        assert (
            f'has format version "{version}"; this Finetuner reads 1.\nIf it was written by a newer one: pip install'
            in str(caught.value)
        )

    @pytest.mark.parametrize(
        ("path", "value", "words"),
        [
            ("pooling", 5, "poolings"),
            ("pooling", None, "poolings"),
            ("projection_dim", "32", 'projection_dim is "32"'),
            ("projection_dim", 0, 'projection_dim is "0"'),
            ("projection_dim", 2.5, 'projection_dim is "2.5"'),
            ("projection_dim", True, 'projection_dim is "True"'),
            ("backbone.name", 7, "name"),
            ("backbone.name", "two\nlines", "two\\\\nlines"),
            ("backbone.task", "chat", 'task is "chat"'),
            ("backbone.output_dim", -1, "output_dim"),
            ("backbone.output_dim", "64", "output_dim"),
            ("backbone.description", ["a"], "description"),
            ("backbone.source", "a\nb", "source"),
        ],
    )
    def test_wrong_values(self, path: str, value: object, words: str, saved: Path) -> None:
        *within, key = path.split(".")
        edit(saved, lambda values: (values[within[0]] if within else values).update({key: value}))
        with pytest.raises(FolderError, match=f"finetuner.json is not valid: .*{words}"):
            read_saved(saved)

    def test_a_row_that_is_none(self, saved: Path) -> None:
        edit(saved, lambda values: values.update(backbone=[1, 2]))
        with pytest.raises(FolderError, match="cannot be read: TypeError"):
            read_saved(saved)


class TestFindRow:
    def test_of_a_saved_model_without_its_plugin(self, saved: Path) -> None:
        assert find_row(str(saved)) == SAVED.info

    @pytest.mark.usefixtures("acme")
    def test_of_the_table(self) -> None:
        assert find_row("letters").full_name == "acme/letters"

    def test_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="There is no folder"):
            find_row(str(tmp_path / "nothing"))

    def test_of_what_is_damaged(self, saved: Path) -> None:
        (saved / FILE).write_text("{")
        with pytest.raises(FolderError, match="cannot be read"):
            find_row(str(saved))


def test_the_format_has_one_version() -> None:
    # Raising it without a way to read what people saved before would lock them out.
    assert saved_module.FORMAT_VERSION == 1


def test_a_folder_of_0_1_0_says_nothing_of_options(saved: Path) -> None:
    edit(saved, lambda values: values.pop("pooling_options"))
    read = read_saved(saved)
    assert isinstance(read, SavedModel)
    assert read.pooling_options == {}


@pytest.mark.parametrize("base", [5, {"name": "toy/tiny"}, {"name": "a", "options": {}, "sha": "b"}])
def test_a_base_that_is_none(base: object, saved: Path) -> None:
    edit(saved, lambda values: values.update(base=base))
    with pytest.raises(FolderError, match="cannot be read: TypeError"):
        read_saved(saved)


def row(name: str, task: str, output_dim: int | None = 4) -> BackboneInfo:
    return BackboneInfo(name, task, output_dim, "CNN", "", namespace="toy")


class TestTowers:
    def write(self, folder: Path) -> None:
        for side in ("query", "document"):
            (folder / side).mkdir()
            SAVED.write(folder / side)
        write_towers(folder)

    def test_each_is_a_saved_model_of_its_own(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "model", self.write)
        assert read_saved(folder) == SavedTowers(SAVED, SAVED)
        assert read_saved(folder / "document") == SAVED
        assert find_row(str(folder)).modalities == ("text",)
        assert json.loads((folder / FILE).read_text())["files"] == ["document/finetuner.json", "query/finetuner.json"]

    def test_one_is_missing(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "model", self.write)
        (folder / "query" / FILE).unlink()
        with pytest.raises(FolderError, match=r"model/query holds no saved model: there is no finetuner.json in it"):
            read_saved(folder)

    @pytest.mark.parametrize(("of", "task"), [("image-to-image", "text-to-image"), ("text-to-text", "text-to-text")])
    def test_the_row_of_both(self, of: str, task: str) -> None:
        joined = joined_row(row("ask", "text-to-text", 8), row("find", of, 6))
        assert (joined.name, joined.task, joined.output_dim) == ("ask + find", task, 6)
        assert joined_row(row("ask", "text-to-text"), row("find", of, None)).output_dim is None

    @pytest.mark.parametrize(
        ("asks", "found"),
        [
            ("image-to-image", "text-to-text"),
            ("image-to-image", "image-to-image"),
            ("text-to-text", "all"),
            ("text-to-image", "image-to-image"),
        ],
    )
    def test_two_that_do_not_go_together(self, asks: str, found: str) -> None:
        with pytest.raises(OptionError, match=r"ask takes .*, find .*\nTwo towers are a text model for what asks"):
            joined_row(row("ask", asks), row("find", found))
