"""Uploading, to a Hub of the tests' own: exactly the model's files, and words for people where it cannot be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetuner_core.artifacts.card import PLACE
from finetuner_core.artifacts.folder import write_folder, write_json
from finetuner_core.artifacts.push import check_repository, files_to_push, push
from finetuner_core.errors import FolderError, HubError

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "README.md").write_text(f'load("{PLACE}")', "utf-8")
        (folder / "query").mkdir()
        (folder / "query" / "config.json").write_text("{}")
        files = ["README.md", "model.safetensors", "query/config.json", "run/log.json"]
        write_json(folder / "finetuner.json", {"format_version": 1, "files": files})

    folder = write_folder(tmp_path / "model", write)
    (folder / "run").mkdir()
    (folder / "run" / "log.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    return folder


class FakeHub:
    """What `HfApi` would have been called with."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None

    def __call__(self, **settings: object) -> FakeHub:
        self.made |= settings
        return self

    def create_repo(self, repo_id: str, **settings: object) -> object:
        if self.error is not None:
            raise self.error
        self.made |= {"repo_id": repo_id, **settings}
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def create_commit(self, repo_id: str, operations: list[Any], commit_message: str) -> None:
        for operation in operations:
            source = operation.path_or_fileobj
            self.files[operation.path_in_repo] = source if isinstance(source, bytes) else Path(source).read_bytes()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(hub, "HfApi", made)
    return made


def test_the_models_files_are_uploaded_and_nothing_else(saved: Path, fake: FakeHub) -> None:
    assert push(saved, "jane/photos", private=True, token="t") == "https://huggingface.co/jane/photos"
    assert fake.made["private"] is True
    assert fake.made["token"] == "t"
    assert fake.files.keys() == {"README.md", "finetuner.json", "model.safetensors", "query/config.json"}
    assert fake.files["model.safetensors"] == b"weights"
    assert fake.files["README.md"] == b'load("jane/photos")'


@pytest.mark.parametrize("name", ["photos", "a/b/c", "jane/", "/photos", "jane/ph otos", "../x", "jane/x.git", "a/b--"])
def test_a_name_that_is_none(name: str, saved: Path, fake: FakeHub) -> None:
    with pytest.raises(HubError, match="is no name of a repository on the Hub") as caught:
        push(saved, name)
    assert name in str(caught.value)
    assert not fake.made


@pytest.mark.parametrize("name", ["jane/photos", "a/b", "my-org/model_1.5-x"])
def test_names(name: str) -> None:
    check_repository(name)


def with_status(status: int) -> Exception:
    error = OSError(f"{status} from the Hub")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (with_status(401), "does not know who you are.\nRun: hf auth login"),
        (with_status(403), "You may not write to jane/photos"),
        (with_status(500), "The Hub did not take jane/photos: 500 from the Hub"),
        (ConnectionError("no route to host"), "The Hub cannot be reached: no route to host"),
    ],
)
def test_what_the_hub_refuses(error: Exception, said: str, saved: Path, fake: FakeHub) -> None:
    fake.error = error
    with pytest.raises(HubError) as caught:
        push(saved, "jane/photos")
    assert said in str(caught.value)
    assert not fake.files


def test_no_saved_model(tmp_path: Path, fake: FakeHub) -> None:
    with pytest.raises(FolderError, match="holds no saved model"):
        push(tmp_path, "jane/photos")


def test_a_folder_that_is_not_whole(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(FolderError, match=r'is not whole: "model.safetensors"'):
        files_to_push(saved)
