"""Uploads a saved model to the Hugging Face Hub: its own files, and nothing else that lies beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from finetuner_core.artifacts.card import CARD_FILE, PLACE
from finetuner_core.artifacts.folder import FILE
from finetuner_core.errors import FolderError, HubError
from finetuner_core.untrusted import check_folder, read_json
from finetuner_core.values import quote

# As the Hub has them: 1 to 96 letters, digits, ".", "_" and "-", none of the last three at an end or twice in a row.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-]))*"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}(?<![.-])")


def check_repository(name: str) -> None:
    """Whether a name can be that of a repository.

    Raises:
        HubError: if it cannot.
    """
    parts = name.split("/")
    if not _REPOSITORY.fullmatch(name) or max(map(len, parts)) > 96 or name.endswith(".git"):
        raise HubError(
            f"{quote(name)} is no name of a repository on the Hub.\n"
            "Write user/name (or organisation/name), of letters, digits, -, _ and ., such as jane/photo-model."
        )


def files_to_push(folder: Path) -> list[str]:
    """The files of a saved model, by their names in its folder; not those of its run, and none that it does not name.

    Raises:
        FolderError: if the folder holds no saved model, or one that is not whole.
    """
    try:
        named = read_json(folder / FILE)["files"]
        files = sorted({FILE, *(name for name in named if not str(name).startswith("run/"))})
    except FileNotFoundError:
        raise FolderError(f"{folder} holds no saved model: there is no {FILE} in it.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{folder / FILE} cannot be read: {type(error).__name__}: {error}.") from None
    check_folder(folder, saved=True)
    for name in files:
        if ".." in Path(name).parts or Path(name).is_absolute() or not (folder / name).is_file():
            raise FolderError(f"{folder} is not whole: {quote(name)}, which its {FILE} names, is not a file in it.")
    return files


def push(
    path: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload an embedding model made with Finetuner",
) -> str:
    """Uploads a saved model in one commit.

    Args:
        path: the model's folder.
        repository: its name on the Hub, `user/name`; it is made where it does not exist.
        private: whether only its owner sees it, for one that is made; `None` for the account's own setting.
        token: of an account that may write; else the one of `hf auth login`.
        message: of the commit.

    Returns:
        Where it is.

    Raises:
        FolderError: if the folder holds no saved model.
        HubError: if the name is none, nobody is logged in, or the Hub cannot be reached or refuses.
    """
    check_repository(repository)
    folder = Path(path).expanduser().resolve()
    files = files_to_push(folder)
    hub = _library()
    operations = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=_content(folder, name, repository)) for name in files
    ]
    api = hub.HfApi(token=token, library_name="finetuner")
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(made.repo_id, operations=operations, commit_message=message)
    except Exception as error:  # the library's HTTP client, which raises, differs between its versions
        raise _why_not(hub, repository, error) from error
    return str(made)


def _content(folder: Path, name: str, repository: str) -> bytes | str:
    """A file's path; the card as it is to read where it will be."""
    if name != CARD_FILE:
        return str(folder / name)
    return (folder / name).read_text("utf-8").replace(PLACE, repository).encode()


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise HubError(
            "Uploading needs huggingface_hub, which is not installed.\nRun: pip install finetuner-core[hub]"
        ) from None
    return huggingface_hub


def _why_not(hub: Any, repository: str, error: Exception) -> HubError:
    """What to say where the Hub was not given the model."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if status == 401 or isinstance(error, hub.errors.LocalTokenNotFoundError):
        return HubError(
            "The Hub does not know who you are.\nRun: hf auth login   or give a token that may write (HF_TOKEN)."
        )
    if status in (403, 404):
        return HubError(
            f"You may not write to {repository} on the Hub: {reason}\n"
            "Choose a name of your own account or organisation, and a token that may write."
        )
    if status is not None or isinstance(error, hub.errors.HFValidationError):
        return HubError(f"The Hub did not take {repository}: {reason}\nNothing of it is there; try again.")
    return HubError(
        f"The Hub cannot be reached: {reason}\nThe model is whole on your disk; push it when there is a network."
    )
