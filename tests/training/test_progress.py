"""What is seen while a model is trained."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
import torch

from finetuner_core.modeling.build import build_model
from finetuner_core.training.best import Check
from finetuner_core.training.loop import Plan
from finetuner_core.training.progress import Progress
from finetuner_core.training.state import Epoch

EPOCH = Epoch(epoch=2, loss=0.12345, learning_rate=1e-3, items_per_second=12345.6, seconds=3.21)


PLAN = Plan(
    epochs=5,
    learning_rate=1e-3,
    weight_decay=0,
    warmup=0,
    schedule="linear",
    max_grad_norm=0,
    dtype=torch.float32,
    mirror=None,
    seed=0,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(progress: Progress) -> None:
    progress.plan(PLAN, 8, 3, [("toy", {"margin": 0.5, "mining": "hard"})], torch.device("cpu"))
    for number in range(3):
        progress.step(0.5 - number / 10, 8)
    progress.epoch(EPOCH)


TRAINING = (
    "Training  toy loss (margin 0.5, mining hard), 5 epochs of 3 steps, batch 8, learning rate 0.001, float32 on cpu"
)
ENDED = "Epoch     2/5  loss 0.1235  12,346 items/s  3.2 s"


def test_a_file_gets_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run(Progress(quiet=False))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [TRAINING, ENDED]


def test_a_terminal_gets_a_bar_that_is_gone_after_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(quiet=False)
    run(progress)
    before, _, after = terminal.getvalue().partition("\r")
    assert before == f"{TRAINING}\n"
    assert "0/3 [" in after
    # The bar is wiped, and the epoch's line stands in its place.
    assert terminal.getvalue().rpartition("\r")[2] == f"{ENDED}\n"
    # The next epoch has a bar of its own.
    progress.step(0.1, 8)
    progress.epoch(EPOCH)
    assert terminal.getvalue().count("0/3 [") == 2


@pytest.mark.parametrize(
    ("mirror", "words"), [(None, ""), (False, "cropped at random"), (True, "cropped and mirrored at random")]
)
def test_what_happens_to_images_is_said(mirror: bool | None, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Progress(quiet=False).plan(replace(PLAN, mirror=mirror), 8, 3, [("toy", {})], torch.device("cpu"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("(")[0].strip() for line in lines[1:]] == ([f"Images    {words}"] if words else [])


@pytest.mark.usefixtures("acme")
def test_how_much_is_trained_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = build_model("letters")
    model.requires_grad_(False).encoder("text").extractor.get_submodule("network.letters_out").requires_grad_(True)
    Progress(quiet=False).model(model)
    total, out = 128 * 16 + 16 * 16 + 16, 16 * 16 + 16
    assert capsys.readouterr().err.splitlines() == [
        f"Model     letters (acme), mean pooling, width 16; {out:,} of {total:,} parameters are trained",
    ]


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    run(Progress(quiet=True))
    assert terminal.getvalue() == ""


def test_losses_of_several_data_sets_are_named_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    losses = [("a", {"margin": 1.0}), ("b", {}), ("a", {"margin": 1.0})]
    Progress(quiet=False).plan(PLAN, 8, 3, losses, torch.device("cpu"))
    assert capsys.readouterr().err.startswith("Training  a loss (margin 1.0) and b loss, 5 epochs")


def test_evaluations_in_the_middle_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=False)
    progress.check(Check(1200, 0.5, True))
    progress.check(Check(1300, 0.25, False))
    progress.kept(Check(1200, 0.5, True))
    assert capsys.readouterr().err.splitlines() == [
        "Step      1,200  0.5000  best",
        "Step      1,300  0.2500",
        "Kept      the weights of step 1,200, at 0.5000 the best",
    ]
