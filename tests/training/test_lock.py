"""One process at a time is at a run."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from resuming import in_child

from finetuner_core.errors import FolderError
from finetuner_core.training.lock import Lock


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(FolderError, match=f"in use: by process {os.getpid()} on {platform.node()}, started 20"):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_lock_of_a_process_that_died_is_no_obstacle(tmp_path: Path) -> None:
    assert in_child(lambda: os._exit(9 if Lock(tmp_path / "lock") else 1)) == 9
    Lock(tmp_path / "lock").release()
