"""`finetuner list`, `show` and `doctor`, and what the help of every command says."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import finetuner_core
from finetuner_core.catalogue.table import as_full_json, as_json, describe_models, list_models, render_row
from finetuner_core.cli import cli
from finetuner_core.values import TASKS
from tests.conftest import InstallPlugin

BROKEN = 'Plugin "broken" (finetuner-broken 1.0) failed: its import raised ZeroDivisionError: division by zero\n'


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.usefixtures("acme")
def test_list_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    for task in (None, *TASKS):
        describe_models(task)
        printed = run("list", *(["--task", task] if task else []))
        assert printed.stdout == capsys.readouterr().out
        assert printed.stderr == ""
    assert "letters" in run("list").stdout


@pytest.mark.usefixtures("acme")
def test_list_gives_the_same_rows_as_json() -> None:
    assert json.loads(run("list", "--json").stdout) == [as_json(row) for row in list_models()]
    (row,) = json.loads(run("list", "--json", "--task", "text-to-text").stdout)
    assert row == {
        "name": "letters",
        "task": "text-to-text",
        "output_dim": 16,
        "architecture": "toy",
        "description": "Letters, embedded",
        "full_name": "acme/letters",
    }


@pytest.mark.usefixtures("acme")
def test_list_searches_beyond_the_table() -> None:
    assert run("list", "--search", "*l*").stdout.split() == ["acme/letters", "acme/pixels", "acme/unlisted"]
    assert json.loads(run("list", "--search", "unl*", "--json").stdout) == ["acme/unlisted"]
    assert run("list", "--search", "zzz").stdout == "No model matches.\n"
    assert json.loads(run("list", "--search", "zzz", "--json").stdout) == []


def test_where_nothing_is_installed_nothing_is_listed() -> None:
    assert run("list").stdout.startswith("                   Finetuner backbones\n┏")
    assert run("list", "--json").stdout == "[]\n"


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["list", "--search", "*"], ["list", "--search", "*", "--json"]]
)
def test_a_problem_stands_on_stderr_alone(install_plugin: InstallPlugin, arguments: list[str]) -> None:
    alone = run(*arguments)
    install_plugin("broken", "print('never in the output')\n1 / 0")
    printed = run(*arguments)

    assert printed.stdout == alone.stdout
    assert printed.stderr == "never in the output\n" + BROKEN


@pytest.mark.usefixtures("acme")
def test_a_search_shows_what_it_can(install_plugin: InstallPlugin) -> None:
    install_plugin(
        "odd", "from finetuner_core.plugin import hookimpl\n@hookimpl\ndef find_backbone_names(pattern):\n    1 / 0\n"
    )
    printed = run("list", "--search", "letters")
    assert printed.stdout == "acme/letters\n"
    assert printed.stderr == (
        'Plugin "odd" (finetuner-odd 1.0) failed in find_backbone_names: ZeroDivisionError: division by zero\n'
    )


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("name", ["numbers", "acme/numbers"])
def test_show_describes_one_model(name: str) -> None:
    (row,) = list_models("all")
    assert run("show", name).stdout == render_row(row) + "\n"
    assert "option        input_size (int, required): Width of the vectors." in run("show", name).stdout
    assert json.loads(run("show", name, "--json").stdout) == json.loads(json.dumps(as_full_json(row)))


@pytest.mark.usefixtures("acme")
def test_show_describes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"acme": "pixels"}))
    assert json.loads(run("show", "./mine", "--json").stdout)["full_name"] == f"acme/{folder}"

    # What Finetuner has saved says itself what it is, also where its plugin is not installed.
    row = as_full_json(list_models("text-to-text")[0]) | {"output_dim": 5}
    fields = ("name", "task", "output_dim", "architecture", "description", "licence", "source", "parameters")
    saved = {
        "format_version": 1,
        "plugin": "elsewhere",
        "backbone": {field: row[field] for field in fields},
        "pooling": "mean",
        "projection_dim": None,
    }
    (folder / "finetuner.json").write_text(json.dumps(saved))
    shown = json.loads(run("show", "./mine", "--json").stdout)
    assert (shown["full_name"], shown["output_dim"], shown["poolings"]) == ("elsewhere/letters", 5, ["mean"])


@pytest.mark.usefixtures("acme")
def test_doctor_exits_with_1_where_something_is_wrong(install_plugin: InstallPlugin) -> None:
    well = run("doctor")
    assert "finetuner-acme 1.0" in well.stdout
    assert well.stdout.endswith("No problem found.\n")

    install_plugin("broken", "1 / 0")
    ill = run("doctor", code=1)
    assert ill.stdout.endswith(f"Problem: {BROKEN}")
    assert ill.stderr == ""
    report = json.loads(run("doctor", "--json", code=1).stdout)
    assert [plugin["status"] for plugin in report["plugins"]] == ["loaded", "failed"]
    assert report["problems"] == [BROKEN.strip()]


@pytest.mark.usefixtures("acme")
def test_json_keeps_letters_that_are_not_ascii(install_plugin: InstallPlugin) -> None:
    install_plugin(
        "umlaut",
        "from finetuner_core.plugin import BackboneInfo, hookimpl\n"
        "@hookimpl\ndef list_backbones():\n    return [BackboneInfo('größe', 'all', 3, 'CNN', 'Ü', options=())]\n",
    )
    assert '"größe"' in run("list", "--json").stdout
    assert '"Ü"' in run("show", "größe", "--json").stdout


def test_version() -> None:
    name, _, version = run("--version").stdout.strip().partition(", version ")
    assert (name, version) == ("finetuner", finetuner_version())


def finetuner_version() -> str:
    from importlib.metadata import version

    return version("finetuner-core")


# The command's word for a parameter of the function, where the two differ.
WORDS = {
    "train_data": "TRAIN",
    "eval_data": "--eval",
    "pretrained": "--from-scratch",
    "model_options": "--model-option",
    "loss_options": "--loss-option",
    "pooling_options": "--pooling-option",
    "lora_options": "--lora-option",
}
FUNCTIONS = {
    "fit": ("training/fit.py", "fit"),
    "evaluate": ("evaluation/evaluate.py", "evaluate"),
    "list": ("catalogue/table.py", "list_models"),
}


def signature_of(command: str) -> dict[str, object]:
    """The parameters of a command's Python function and their defaults, read without importing what it needs."""
    file, function = FUNCTIONS[command]
    tree = ast.parse((Path(finetuner_core.__file__).parent / file).read_text(encoding="utf-8"))
    (node,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    positional = [*node.args.posonlyargs, *node.args.args]
    empty = [None] * (len(positional) - len(node.args.defaults))
    defaults = [*empty, *node.args.defaults, *node.args.kw_defaults]
    return {
        argument.arg: inspect.Parameter.empty if default is None else ast.literal_eval(default)
        for argument, default in zip([*positional, *node.args.kwonlyargs], defaults, strict=True)
    }


@pytest.mark.parametrize("command", FUNCTIONS)
def test_the_help_of_a_command_has_every_parameter_of_its_function(command: str) -> None:
    text = run(command, "--help").stdout
    for parameter, default in signature_of(command).items():
        option = f"--{parameter.replace('_', '-')}"
        word = WORDS.get(parameter, parameter.upper() if default is inspect.Parameter.empty else option)
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), f"{command} --help lacks {word}"


@pytest.mark.parametrize("command", cli.commands)
def test_every_command_and_every_option_is_explained(command: str) -> None:
    text = run(command, "--help").stdout
    assert text == run(command, "-h").stdout
    assert max(map(len, text.splitlines())) <= 120
    assert cli.commands[command].help
    for parameter in cli.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{command} {parameter.opts[0]} is not explained"
            assert parameter.opts[0] in text
        else:
            assert str(parameter.name).upper() in text.split("Options:")[0].split(maxsplit=3)[-1]


def test_the_help_names_every_command() -> None:
    text = run("--help").stdout
    assert set(re.findall(r"^  ([a-z]+) ", text, re.MULTILINE)) == set(cli.commands)
    names = {"list", "show", "check", "fit", "mine", "evaluate", "encode", "export", "push", "runs", "doctor"}
    assert set(cli.commands) == names


def defaults_in_help(command: str) -> dict[str, str]:
    """What the help of a command's options says in brackets."""
    options = [option for option in cli.commands[command].params if isinstance(option, click.Option)]
    stated = {str(option.name): re.search(r"\[(.*)\]$", option.help or "") for option in options}
    return {name: match[1] for name, match in stated.items() if match}


def test_the_defaults_that_the_help_of_fit_states_are_the_functions() -> None:
    defaults = {name: value for name, value in signature_of("fit").items() if value is not inspect.Parameter.empty}
    stated = defaults_in_help("fit")

    settings = {name: value for name, value in defaults.items() if value is not None and not isinstance(value, bool)}
    assert settings, "there are defaults to compare"
    for name, default in settings.items():
        assert name in stated, f"the help does not state the default of {name}"
        said = stated.pop(name)
        assert said == default if isinstance(default, str) else float(said) == default
    # What is left is said in words: the function finds it out.
    assert all(defaults[name] is None for name in stated)


@pytest.fixture
def fit_was_given(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the command `fit` hands to the function, which is not called."""
    given: dict[str, object] = {}

    def record(model: str, train_data: str, **settings: object) -> None:
        given.update(settings, model=model, train_data=train_data)

    monkeypatch.setitem(vars(finetuner_core), "fit", record)
    return given


def test_options_that_are_not_given_are_left_to_the_functions_defaults(fit_was_given: dict[str, object]) -> None:
    run("fit", "letters", "train.csv", "--out", "out")

    assert [fit_was_given.pop(name) for name in ("model", "train_data", "out")] == ["letters", "train.csv", "out"]
    defaults = signature_of("fit")
    for name, value in fit_was_given.items():
        assert value == defaults[name] or (defaults[name] is None and value == {}), name


def test_options_reach_the_function(fit_was_given: dict[str, object]) -> None:
    arguments = "--eval e.csv --from-scratch --freeze 2 --val-split 0.5 --epochs 3 --quiet --columns text=a,label=b"
    options = "--model-option sizes=512,128 --model-option bias=no --loss triplet --loss-option margin=0.3"
    run("fit", "letters", "train.csv", "--out", "out", *arguments.split(), *options.split())

    assert fit_was_given == {
        "model": "letters",
        "train_data": "train.csv",
        "out": "out",
        "eval_data": "e.csv",
        "pretrained": False,
        "freeze": 2,
        "val_split": 0.5,
        "epochs": 3,
        "quiet": True,
        "pooling_options": {},
        "lora_options": {},
        "adapter": False,
        "skip_bad_items": False,
        "skip_bad_steps": False,
        "allow_changed_versions": False,
        "columns": {"text": "a", "label": "b"},
        "model_options": {"sizes": "512,128", "bias": "no"},
        "loss": "triplet",
        "loss_options": {"margin": "0.3"},
    }
    run("fit", "letters", "train.csv", "--out", "out", "--freeze", "backbone")
    assert fit_was_given["freeze"] == "backbone"


@pytest.mark.parametrize(("flag", "first"), [("--losses", "infonce: "), ("--poolings", "native: ")])
def test_losses_and_poolings_are_listed_with_their_options(flag: str, first: str) -> None:
    text = run("list", flag).stdout
    assert text.startswith(first)
    rows = json.loads(run("list", flag, "--json").stdout)
    assert [row["name"] for row in rows] == re.findall(r"^(\w+): ", text, re.MULTILINE)
    options = [f"    {option['name']} ({option['type']}, " for row in rows for option in row["options"]]
    assert options == re.findall(r"^    \w+ \(\w+, ", text, re.MULTILINE) != []


def test_a_loss_that_two_plugins_list_is_shown_as_it_has_to_be_written(install_plugin: InstallPlugin) -> None:
    source = """
        from finetuner_core.plugin import LossInfo, hookimpl
        @hookimpl
        def list_losses():
            return [LossInfo("triplet", ""), LossInfo("own", "")]
    """
    install_plugin("more", source)
    names = [row["name"] for row in json.loads(run("list", "--losses", "--json").stdout)]
    assert names[:5] == ["more/triplet", "own", "infonce", "finetuner/triplet", "contrastive"]


def test_losses_are_listed_with_the_data_that_they_learn_from() -> None:
    text = run("list", "--losses").stdout
    forms = dict(re.findall(r"^(\w+): .*\n    for (.*) data$", text, re.MULTILINE))
    assert forms["infonce"] == "labelled and pairs"
    assert forms["cosent"] == "scored"


@pytest.mark.parametrize("more", [["--task", "all"], ["--search", "*"], ["--poolings"]])
def test_what_does_not_go_with_losses(more: list[str]) -> None:
    done = run("list", "--losses", *more, code=2)
    assert done.stderr == "Error: --losses and --poolings each stand alone, but for --json.\n"
