"""The folder of a saved model: whole or not there, and never something else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuner_core.artifacts.folder import FILE, check_writable, write_folder, write_json
from finetuner_core.errors import FolderError
from tests.artifacts.test_saved import write_model


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "saved", write_model)


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
