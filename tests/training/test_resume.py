"""A run that was killed ends with what the run that was never killed ends with, bit by bit."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import (
    KILLED,
    image_folder,
    in_child,
    kill_after,
    labelled_texts,
    saved,
    scored_pairs,
    text_pairs,
    vectors,
    watch,
)

from finetuner_core.data.sources import TrainingSet
from finetuner_core.errors import DataError, FolderError, Interrupted, OptionError
from finetuner_core.training import checkpoints as checkpoints_module
from finetuner_core.training.fit import fit
from finetuner_core.training.keeping import Keeping

pytestmark = [
    pytest.mark.usefixtures("acme"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes"),
]

FAST: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.03,
    "quiet": True,
    "device": "cpu",
    "checkpoint_every": 2,
    "model_options": {"dropout": 0.2},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """A forked process hangs where its parent's threads were in the midst of something."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: Any, steps: list[int], **given: Any
) -> None:
    """Kills a run after each of some steps, one after the other, and compares its end with that of one left alone."""
    settings = FAST | given
    endings = watch(monkeypatch)
    fit(model, data, out=tmp_path / "whole" / "model", **settings)
    out = tmp_path / "killed" / "model"

    for step in steps:

        def killed(step: int = step) -> None:
            kill_after(step)
            fit(model, data, out=out, **settings)

        assert in_child(killed) == KILLED
        assert not out.exists()
    fit(model, data, out=out, **settings)
    whole, resumed = endings
    assert resumed == whole
    assert saved(out) == saved(tmp_path / "whole" / "model")
    assert [path.name for path in out.parent.iterdir()] == ["model"]


LOSSES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "labels, no parameters": (labelled_texts, {"loss": "infonce"}),
    "labels, parameters": (labelled_texts, {"loss": "siglip"}),
    "pairs, no parameters": (text_pairs, {"loss": "triplet"}),
    "pairs, parameters": (text_pairs, {"loss": "infonce", "loss_options": {"learnable": True}}),
    "scores": (scored_pairs, {"loss": "cosent"}),
}


@pytest.mark.parametrize(
    ("loss", "workers", "precision", "chunk_size", "cached"),
    list(itertools.product(LOSSES, (0, 2), ("float32", "bfloat16"), (None, 3), (False, True))),
)
def test_it_ends_the_same_after_a_kill(
    loss: str,
    workers: int,
    precision: str,
    chunk_size: int | None,
    cached: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, given = LOSSES[loss]
    frozen = {"freeze": "backbone", "output_dim": 6} if cached else {}
    place = random.Random(f"{loss} {workers} {precision} {chunk_size} {cached}")
    given = given | frozen | {"workers": workers, "precision": precision, "chunk_size": chunk_size}
    check_kills(tmp_path, monkeypatch, "letters", make(tmp_path), [place.randint(3, 9)], **given)


DRAWING = """
from finetuner_core.plugin import LossInfo, hookimpl

@hookimpl
def list_losses():
    return [LossInfo("drawing", "")]

@hookimpl
def build_loss(info, dim, options):
    import random
    import numpy as np
    import torch
    class Drawing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.mean = 0, torch.zeros(dim)
        def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
            drawn = random.random() + random.gauss(0, 1) + np.random.rand() + np.random.randn() + torch.rand(())
            self.seen += len(embeddings)
            self.mean = 0.9 * self.mean + 0.1 * embeddings.detach().mean(0)
            scores = embeddings @ embeddings.T * (1 + drawn) - embeddings @ self.mean / self.seen
            return torch.nn.functional.cross_entropy(scores, labels)
    return Drawing()
"""


@pytest.mark.parametrize("case", ["memory", "best", "patience", "several", "images", "views", "vectors", "drawing"])
def test_whatever_else_a_run_remembers(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install_plugin: Callable[..., None]
) -> None:
    model, data, steps = "letters", text_pairs, [3, 7, 8]
    given: dict[str, Any] = {}
    if case == "memory":
        given = {"memory": 40}
    elif case == "best":
        given = {"eval_every": 3}
    elif case == "patience":
        given = {"eval_every": 1, "patience": 2, "learning_rate": 1e-7, "checkpoint_every": 1}
        steps = [2]
    elif case in ("images", "views"):
        model, data, steps = "pixels", image_folder, [2, 4, 5]
        given = {"augment": "crop+mirror", "model_options": {}, "pretrained": case == "views", "epochs": 2}
        if case == "views":
            given |= {"freeze": 1, "views": 2, "epochs": 4}
    elif case == "vectors":
        model, data, given = "numbers", vectors, {"model_options": {}, "pretrained": False, "epochs": 4}
    elif case == "drawing":
        install_plugin("drawing", DRAWING)
        data, given = labelled_texts, {"loss": "drawing"}
    sets: Any = data(tmp_path)
    if case == "several":
        sets = [TrainingSet(sets, weight=2), TrainingSet(scored_pairs(tmp_path), weight=1, loss="cosine")]
    check_kills(tmp_path, monkeypatch, model, sets, steps, **given)


def test_a_kill_at_every_boundary_within_the_write_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the system is one before which the process may end."""
    data = text_pairs(tmp_path)
    settings = FAST | {"epochs": 2, "eval_every": 3}
    endings = watch(monkeypatch)
    fit("letters", data, out=tmp_path / "whole", **settings)

    def run_until(out: Path, call: int) -> None:
        """The process ends at a call within the second checkpoint or the third; with 0 where there is none left."""
        write = checkpoints_module.Checkpoints.write
        calls = itertools.count(1)

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*arguments: Any, **named: Any) -> Any:
                if next(calls) == call:
                    os._exit(KILLED)
                return function(*arguments, **named)

            return counting

        def written(self: Any, step: int, snapshot: Any) -> None:
            if step in (4, 6):
                for owner, name in (
                    (os, "mkdir"), (os, "fsync"), (os, "rename"), (os, "link"), (os, "unlink"), (os, "rmdir"),
                    (Path, "open"), (Path, "rename"), (Path, "mkdir"), (checkpoints_module, "write_tensors"),
                ):  # fmt: skip
                    monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
            write(self, step, snapshot)
            monkeypatch.undo()

        checkpoints_module.Checkpoints.write = written  # type: ignore[method-assign]
        fit("letters", data, out=out, **settings)

    kills = 0
    for call in itertools.count(1):
        out = tmp_path / f"killed{call}"
        code = in_child(lambda out=out, call=call: run_until(out, call))  # type: ignore[misc]
        if code != KILLED:
            assert code == 0
            break
        kills += 1
        fit("letters", data, out=out, **settings)
        assert endings.pop() == endings[0]
        assert saved(out) == saved(tmp_path / "whole")
    assert kills > 20


class TestDamaged:
    """A checkpoint that is not as it was written is noticed, and the one before is used."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return text_pairs(tmp_path)

    def begin(self, tmp_path: Path, data: Path, **given: Any) -> Path:
        def killed() -> None:
            kill_after(8)
            fit("letters", data, out=tmp_path / "model", **FAST | given)

        assert in_child(killed) == KILLED
        return tmp_path / "model.run" / "checkpoints"

    @pytest.mark.parametrize("damage", ["flipped bit", "cut short", "numbers", "no numbers", "no tensors", "both"])
    def test_the_one_before_is_used(
        self, damage: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        endings = watch(monkeypatch)
        fit("letters", data, out=tmp_path / "whole", **FAST)
        folder = self.begin(tmp_path, data)
        assert sorted(path.name for path in folder.iterdir()) == ["step-0000004", "step-0000006"]
        for step in ("step-0000004", "step-0000006") if damage == "both" else ("step-0000006",):
            tensors, numbers = folder / step / "state.safetensors", folder / step / "state.json"
            if damage in ("flipped bit", "both"):
                content = bytearray(tensors.read_bytes())
                content[len(content) // 2] ^= 1
                tensors.write_bytes(content)
            elif damage == "cut short":
                os.truncate(tensors, tensors.stat().st_size - 1)
            elif damage == "numbers":
                numbers.write_text(numbers.read_text().replace('"done": 6', '"done": 5'))
            else:
                (numbers if damage == "no numbers" else tensors).unlink()
        fit("letters", data, out=tmp_path / "model", **FAST)
        assert any("the checkpoint of step 6 is damaged" in message for message in caplog.messages)
        assert endings[1] == endings[0]

    def test_of_a_newer_version_it_is_refused(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints_module, "VERSION", 2)
        self.begin(tmp_path, data)
        monkeypatch.setattr(checkpoints_module, "VERSION", 1)
        with pytest.raises(FolderError, match="has format version 2; this Finetuner reads 1"):
            fit("letters", data, out=tmp_path / "model", **FAST)

    def test_changed_settings_are_named_and_nothing_is_lost(self, tmp_path: Path, data: Path) -> None:
        folder = self.begin(tmp_path, data)
        with pytest.raises(
            FolderError, match=r"other settings: learning_rate 0.03 \(now 0.01\)\.\nGo on as it was begun"
        ):
            fit("letters", data, out=tmp_path / "model", **FAST | {"learning_rate": 0.01})
        assert len(list(folder.iterdir())) == 2

    def test_changed_data_are_named(self, tmp_path: Path, data: Path) -> None:
        self.begin(tmp_path, data)
        data.write_text(data.read_text().replace("A", "B", 1))
        with pytest.raises(FolderError, match=r"other data: training on pairs.csv 80 pairs of texts, sha256"):
            fit("letters", data, out=tmp_path / "model", **FAST)

    def test_changed_versions_are_named_unless_they_are_allowed(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.begin(tmp_path, data)
        file = tmp_path / "model.run" / "run.json"
        manifest = json.loads(file.read_text())
        assert {"python", "torch", "numpy", "finetuner-acme"} <= manifest["versions"].keys()
        manifest["versions"]["torch"] = "1.0"
        file.write_text(json.dumps(manifest))
        with pytest.raises(FolderError, match=r"other versions: torch 1.0 \(now .*\)\.\nInstall those again"):
            fit("letters", data, out=tmp_path / "model", **FAST)
        fit("letters", data, out=tmp_path / "model", allow_changed_versions=True, **FAST)

    def test_what_changes_nothing_of_the_result_may_change(self, tmp_path: Path, data: Path) -> None:
        self.begin(tmp_path, data)
        fit("letters", data, out=tmp_path / "model", **FAST | {"workers": 3, "checkpoint_every": "1h"})

    def test_the_weights_that_it_started_from_have_to_be_the_same(self, tmp_path: Path, data: Path) -> None:
        state = tmp_path / "model.run" / "checkpoints"
        self.begin(tmp_path, data)
        for file in state.glob("*/state.json"):
            text = json.loads(file.read_text())
            text["content"]["model"] = "0" * 64
            text["sha256"] = checkpoints_module._sha256(text["content"])
            file.write_text(json.dumps(text))
        with pytest.raises(FolderError, match="The model has changed"):
            fit("letters", data, out=tmp_path / "model", **FAST)


def test_before_the_first_checkpoint_nothing_stays_that_another_command_would_stumble_over(tmp_path: Path) -> None:
    data = text_pairs(tmp_path)

    def killed() -> None:
        kill_after(1)
        fit("letters", data, out=tmp_path / "model", **FAST)

    assert in_child(killed) == KILLED
    fit("letters", data, out=tmp_path / "model", **FAST | {"learning_rate": 0.01})
    assert not (tmp_path / "model.run").exists()


def test_a_full_disk_ends_the_run_with_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = text_pairs(tmp_path)
    usage = shutil.disk_usage
    frees = iter([2**40, 2**40, 1])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=next(frees, 2**40)))
    with pytest.raises(
        FolderError, match=r"of step 6 cannot be written .*: the disk is full\.\nMake room.*step 4"
    ) as error:
        fit("letters", data, out=tmp_path / "model", **FAST)
    assert len(str(error.value).splitlines()) == 2
    assert [path.name for path in (tmp_path / "model.run" / "checkpoints").iterdir()] != []
    fit("letters", data, out=tmp_path / "model", **FAST)


def test_max_time_ends_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = text_pairs(tmp_path)
    endings = watch(monkeypatch)
    fit("letters", data, out=tmp_path / "whole", **FAST)
    for _ in range(15):
        with pytest.raises(
            Interrupted, match=r"Stopped after step \d+ of 15. Go on with: finetuner fit --resume"
        ) as stop:
            fit("letters", data, out=tmp_path / "model", max_time=1e-9, **FAST)
        assert stop.value.exit_code == 75
        assert stop.value.folder == tmp_path / "model.run"
    fit("letters", data, out=tmp_path / "model", **FAST)
    assert endings[-1] == endings[0]


def test_ctrl_c_finishes_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    note = Keeping.note

    def noted(self: Keeping, position: Any, *rest: Any) -> None:
        note(self, position, *rest)
        if position.done == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Keeping, "note", noted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 3 of") as stop:
        fit("letters", text_pairs(tmp_path), out=tmp_path / "model", **FAST | {"checkpoint_every": None})
    assert stop.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "model.run" / "checkpoints" / "step-0000003").is_dir()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint_every", 0),
        ("checkpoint_every", "often"),
        ("max_time", -1),
        ("max_time", "x"),
        ("keep_checkpoints", 0),
    ],
)
def test_settings_out_of_their_range(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{name} is"):
        fit("letters", "nothing.csv", out=tmp_path / "model", **{name: value})  # type: ignore[arg-type]


def test_without_a_folder_there_is_nothing_to_go_on_with() -> None:
    with pytest.raises(OptionError, match="give out as well"):
        fit("letters", "nothing.csv", max_time="1h")


def test_what_is_wrong_with_the_data_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fit("letters", tmp_path / "nothing.csv", out=tmp_path / "model")
    assert not (tmp_path / "model.run").exists()
