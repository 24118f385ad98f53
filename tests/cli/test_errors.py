"""Whatever a person types has an answer: one line or two on stderr, code 2, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetuner_core.cli import cli
from tests.conftest import OWN_NAMESPACES, InstallPlugin

LONG = "x" * 5000
FIT = ["fit", "acme/letters", "train.csv", "--out", "out"]

# What is typed, and how the answer begins after "Error: "; the empty text where that follows from what is installed.
MISTAKES = {
    "no such command": (["lst"], "No such command 'lst'"),
    "no such option": (["list", "--jsn"], "No such option"),
    "no such option of all": (["--jsn", "list"], "No such option"),
    "no value": (["list", "--task"], "Option '--task' requires an argument."),
    "too many arguments": (["list", "more"], "Got unexpected extra argument (more)"),
    "no argument": (["show"], "Missing argument 'MODEL'."),
    "no second argument": (["fit", "letters"], "Missing argument 'TRAIN...'."),
    "no folder to save in": (["fit", "letters", "train.csv"], "Missing option '--out'."),
    "no number": ([*FIT, "--epochs", "many"], "Invalid value for '--epochs': 'many' is not a valid integer"),
    "no mapping": ([*FIT, "--columns", "anchor"], "Invalid value for '--columns': \"anchor\" is not of the form name="),
    "half a mapping": ([*FIT, "--loss-option", "margin="], "Invalid value for '--loss-option': \"margin=\" is not of"),
    "no such task": (["list", "--task", "dance"], 'There is no task "dance".\nTasks: all, image-to-image, '),
    "no such task, in JSON": (["list", "--json", "--task", "dance"], 'There is no task "dance".\nTasks: all'),
    "two that do not go together": (["list", "--task", "all", "--search", "x"], "--search and --task do not go "),
    "no such model": (["show", "leters"], 'No model is named "leters". Did you mean "letters"'),
    "no such model of a plugin": (["show", "acme/leters"], 'Plugin "acme" knows no model "leters". Did you mean "le'),
    "an empty name": (["show", ""], 'No model is named "".'),
    "a name of another world": (["show", "a\nb\x1b[2J"], 'No model is named "a\\nb\\x1b[2J".'),
    "a long name": (["show", LONG], 'No model is named "xxx'),
    "a long path": (["show", f"./{LONG}"], 'There is no folder "'),
    "somebody's home": (["show", "~nobody-is-called-so/model"], 'No model is named "~nobody-is-called-so/model".'),
    "no such folder": (["show", "./nothing"], 'There is no folder "'),
    "a file": (["show", "./file"], 'There is no folder "'),
    "a folder that is no model": (["show", "./folder"], '"'),
    "a saved model that is cut off": (["show", "./cut"], ""),
    "a missing plugin": (["show", "timm/convnext"], 'The plugin "timm" is not installed.\nInstall it: pip install '),
    "a broken plugin": (["show", "broken/model"], 'Plugin "broken" (finetuner-broken 1.0) failed: its import raised'),
    "another suffix": (["encode", "letters", "d.csv", "--out", "vectors.csv"], "vectors.csv must end in .npy or "),
    "no folder to write in": (["encode", "letters", "d.csv", "--out", "no/v.npy"], "no/v.npy cannot be written: "),
    "no such data": (["evaluate", "letters", "nothing.csv"], ""),
    "no such data to train on": (FIT, ""),
    "no such model to train": (["fit", "leters", "nothing.csv", "--out", "out"], ""),
    "no such number of stages": ([*FIT, "--freeze", "²"], ""),
    "no such model to evaluate": (["evaluate", LONG, "nothing.csv"], ""),
    "nobody's model to evaluate": (["evaluate", "~nobody-is-called-so/model", "nothing.csv"], ""),
    "no such data to encode": (["encode", "letters", "nothing.csv", "--out", "v.npy"], ""),
}  # fmt: skip


@pytest.fixture
def place(install_plugin: InstallPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with things that are no model, the toy plugin, and one that is broken."""
    folder = tmp_path / "place"
    (folder / "folder").mkdir(parents=True)
    (folder / "cut").mkdir()
    (folder / "cut" / "finetuner.json").write_text('{"format_version": 1,')
    (folder / "file").touch()
    monkeypatch.chdir(folder)
    install_plugin("acme", target="acme.plugin")
    install_plugin("broken", "1 / 0")
    return folder


def run_process(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the console script in a process of its own, with no plugin but those that the test has installed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    path = os.pathsep.join(filter(None, sys.path))
    own = {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "FINETUNER_DISABLE_PLUGINS": ",".join(OWN_NAMESPACES)}
    return subprocess.run(
        [sys.executable, "-c", "from finetuner_core.cli import main; main()", *arguments],
        env=inherited | own | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )


def assert_is_an_answer(text: str) -> None:
    assert text.startswith("Error: ")
    assert 1 <= len(text.splitlines()) <= 2, text
    assert "Traceback" not in text


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_has_an_answer(arguments: list[str], says: str) -> None:
    if arguments[0] == "encode":
        pytest.importorskip("torch")  # without it that is what is said
    result = CliRunner().invoke(cli, arguments)

    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    assert_is_an_answer(result.stderr)
    assert result.stderr.removeprefix("Error: ").startswith(says)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "mistake", ["no such option", "no argument", "no such task", "no such model", "a long path", "a broken plugin"]
)
def test_the_console_script_says_it_as_well(mistake: str) -> None:
    arguments, says = MISTAKES[mistake]
    done = run_process(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert_is_an_answer(done.stderr)
    assert done.stderr.removeprefix("Error: ").startswith(says)


@pytest.mark.usefixtures("place")
def test_the_console_script_lists_and_names_what_is_broken() -> None:
    done = run_process("list")
    assert done.returncode == 0
    assert "│ letters" in done.stdout
    assert done.stderr == (
        'Plugin "broken" (finetuner-broken 1.0) failed: its import raised ZeroDivisionError: division by zero\n'
    )


@pytest.mark.usefixtures("place")
def test_a_plugins_author_sees_where_it_fails() -> None:
    done = run_process("list", FINETUNER_STRICT="1")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    "arguments",
    ["list", "list --json", "list --search *", "show letters", "doctor", "--help", "--version"],
)
def test_a_reader_who_has_enough_ends_it_quietly(arguments: str) -> None:
    """As in `finetuner list | head -1`, where the reader is gone before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_process(*arguments.split(), stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_without_arguments_the_help_is_shown() -> None:
    done = run_process()
    assert "Usage: " in done.stdout + done.stderr
    assert "doctor" in done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_ctrl_c_ends_it_quietly(install_plugin: InstallPlugin) -> None:
    install_plugin("slow", "raise KeyboardInterrupt")
    done = run_process("list")
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr.split() == ["Stopped."]


def test_verbose_is_told_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNER_VERBOSE", "")
    assert CliRunner().invoke(cli, ["list"]).exit_code == 0
    assert os.environ["FINETUNER_VERBOSE"] == ""
    assert CliRunner().invoke(cli, ["--verbose", "list"]).exit_code == 0
    assert os.environ["FINETUNER_VERBOSE"] == "1"
