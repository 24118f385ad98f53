"""The folder of a saved model: whole or not there, and never something else's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetuner_core.artifacts import folder as folder_module
from finetuner_core.artifacts.folder import (
    FILE,
    SavedModel,
    check_writable,
    find_row,
    is_saved_model,
    write_folder,
    write_json,
)
from finetuner_core.errors import FolderError, UnknownNameError
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
    32,
)


def write_model(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weights")
    SAVED.write(folder)


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "saved", write_model)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / FILE
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


class TestCheckWritable:
    @pytest.mark.parametrize("name", ["new", "new/within/new", "empty", "saved"])
    def test_what_can_become_a_model(self, name: str, tmp_path: Path, saved: Path) -> None:
        (tmp_path / "empty").mkdir()
        before = sorted(tmp_path.rglob("*"))
        assert check_writable(tmp_path / name) == check_writable(str(tmp_path / name)) == tmp_path / name
        # It only looks.
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_stranger_in_a_saved_model_is_not_lost(self, saved: Path) -> None:
        (saved / "1_Pooling").mkdir()
        (saved / "1_Pooling" / "notes.json").write_text("mine")
        with pytest.raises(FolderError, match=r"something else than a saved model: 1_Pooling/notes\.json"):
            check_writable(saved)

    @pytest.mark.parametrize("path", [".", ".."])
    def test_the_folder_that_a_person_is_in(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with pytest.raises(FolderError, match="is the folder that you are in, or above it"):
            check_writable((tmp_path / "here" / path).resolve())

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(FolderError, match="file is a file; a model is written into a folder"):
            check_writable(tmp_path / "file")
        with pytest.raises(FolderError, match=f"no right to write in {tmp_path}"):
            check_writable(tmp_path / "file" / "model")

    def test_a_folder_with_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(FolderError, match=f"{tmp_path} holds something else than a saved model"):
            check_writable(tmp_path)

    def test_no_right_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Said of the nearest folder that is there. It is simulated, since the superuser may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
        with pytest.raises(FolderError, match=f"no right to write in {tmp_path}"):
            check_writable(tmp_path / "a" / "b")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
    def test_no_right_to_write_in_truth(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(FolderError, match="no right to write"):
                check_writable(tmp_path / "model")
        finally:
            tmp_path.chmod(0o700)

    def test_a_name_that_no_disk_takes(self, tmp_path: Path) -> None:
        with pytest.raises(FolderError, match="cannot be written: File name too long"):
            check_writable(tmp_path / ("x" * 300))

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert check_writable("~/model") == tmp_path / "model"


class TestWriteFolder:
    def test_it_makes_the_folders_above_and_leaves_no_scratch(self, tmp_path: Path) -> None:
        path = write_folder(tmp_path / "a" / "b", write_model)
        assert content(tmp_path).keys() == {f"a/b/{FILE}", "a/b/model.safetensors"}
        assert list(path.parent.iterdir()) == [path]

    def test_it_replaces_a_saved_model_with_all_that_it_held(self, saved: Path) -> None:
        def write(folder: Path) -> None:
            assert not list(folder.iterdir())
            assert (saved / "model.safetensors").exists()
            write_json(folder / FILE, {"new": True})

        assert write_folder(saved, write) == saved
        assert list(content(saved)) == [FILE]
        assert list(saved.parent.iterdir()) == [saved]

    @pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
    def test_what_goes_wrong_leaves_the_old_one_as_it_was(self, error: BaseException, saved: Path) -> None:
        before = content(saved)

        def write(folder: Path) -> None:
            (folder / "half.safetensors").write_text("half")
            raise error

        with pytest.raises(type(error)) as caught:
            write_folder(saved, write)
        assert caught.value is error
        assert content(saved.parent) == {f"saved/{name}": text for name, text in before.items()}

    def test_a_full_disk_is_said_in_one_line(self, tmp_path: Path) -> None:
        def write(_: Path) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(FolderError, match=r'model" cannot be written: No space left on device\.'):
            write_folder(tmp_path / "model", write)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("there", [False, True])
    def test_a_rename_that_fails_puts_the_old_one_back(
        self, there: bool, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            if self.name == "new":
                raise OSError(5, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        before = content(saved.parent)
        with pytest.raises(FolderError, match="Input/output error"):
            write_folder(saved if there else saved.parent / "new", write_model)
        assert content(saved.parent) == before

    @pytest.mark.parametrize("name", ["model.pkl", "weights.bin", "code.py", "LICENSE", "deep/down/model.pt"])
    def test_only_json_and_safetensors_are_kept(self, name: str, saved: Path) -> None:
        before = content(saved.parent)

        def write(folder: Path) -> None:
            write_model(folder)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("import os")

        with pytest.raises(FolderError, match=f"plugin wrote {Path(name).name}; allowed are JSON and safetensors"):
            write_folder(saved, write)
        assert content(saved.parent) == before

    def test_what_is_not_ours_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(FolderError, match="holds something else"):
            write_folder(tmp_path, write_model)
        assert content(tmp_path) == {"notes.txt": "mine"}


class TestSavedModel:
    @pytest.mark.parametrize("projection_dim", [None, 32])
    def test_it_reads_what_it_wrote(self, projection_dim: int | None, tmp_path: Path) -> None:
        saved = SavedModel(SAVED.info, "mean", projection_dim)
        saved.write(tmp_path)
        read = SavedModel.read(tmp_path)
        assert read == saved
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
            "projection_dim": 32,
            "files": ["model.safetensors"],
        }
        assert "–" in (saved / FILE).read_text(encoding="utf-8")

    def test_a_folder_without_it(self, tmp_path: Path) -> None:
        assert not is_saved_model(tmp_path)
        with pytest.raises(FolderError, match=f"{tmp_path} holds no saved model: there is no finetuner.json"):
            SavedModel.read(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', '{"format_version": 1', "\0", "{}"])
    def test_damaged(self, text: str, saved: Path) -> None:
        (saved / FILE).write_text(text)
        with pytest.raises(FolderError, match=r"finetuner.json cannot be read: \w+Error: "):
            SavedModel.read(saved)

    def test_not_utf_8(self, saved: Path) -> None:
        (saved / FILE).write_bytes(b'{"format_version": "\xff"}')
        with pytest.raises(FolderError, match="cannot be read: UnicodeDecodeError"):
            SavedModel.read(saved)

    @pytest.mark.parametrize("key", ["format_version", "plugin", "backbone", "pooling", "projection_dim"])
    def test_a_missing_key(self, key: str, saved: Path) -> None:
        edit(saved, lambda values: values.pop(key))
        with pytest.raises(FolderError, match=f"cannot be read: KeyError: '{key}'"):
            SavedModel.read(saved)

    @pytest.mark.parametrize("key", ["name", "task", "output_dim", "licence"])
    def test_a_missing_field_of_the_row(self, key: str, saved: Path) -> None:
        edit(saved, lambda values: values["backbone"].pop(key))
        with pytest.raises(FolderError, match=f"KeyError: '{key}'"):
            SavedModel.read(saved)

    @pytest.mark.parametrize("version", [2, 0, "1", None])
    def test_another_version(self, version: object, saved: Path) -> None:
        edit(saved, lambda values: values.update(format_version=version))
        with pytest.raises(FolderError) as caught:
            SavedModel.read(saved)
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
            SavedModel.read(saved)

    def test_a_row_that_is_none(self, saved: Path) -> None:
        edit(saved, lambda values: values.update(backbone=[1, 2]))
        with pytest.raises(FolderError, match="cannot be read: TypeError"):
            SavedModel.read(saved)


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
    assert folder_module.FORMAT_VERSION == 1


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_model(folder)
        (folder / "model.safetensors").chmod(0o600)

    mask = os.umask(0o027)
    try:
        folder = write_folder(tmp_path / "model", write)
    finally:
        os.umask(mask)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o640
