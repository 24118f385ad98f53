"""The value objects check themselves, and say what they were given."""

from __future__ import annotations

from typing import Any

import pytest

from finetuner_core.errors import FinetunerError, OptionError
from finetuner_core.values import (
    TASKS,
    BackboneInfo,
    LossInfo,
    Option,
    PoolingInfo,
    is_namespace,
    listed,
    near,
    quote,
    resolve_options,
)


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        (Option("n", "int"), "12", 12),
        (Option("n", "int"), -3, -3),
        (Option("n", "int", minimum=1), 1, 1),
        (Option("x", "float"), "0.3", 0.3),
        (Option("x", "float"), 2, 2.0),
        (Option("x", "float", minimum=0), "0", 0.0),
        (Option("s", "str"), "1", "1"),
        (Option("s", "str", choices=("hard", "semihard")), "semihard", "semihard"),
        (Option("b", "bool"), "Yes", True),
        (Option("b", "bool"), "0", False),
        (Option("b", "bool"), True, True),
        (Option("l", "ints"), "512,128", (512, 128)),
        (Option("l", "ints"), "512, 128,", (512, 128)),
        (Option("l", "ints"), [512, "128"], (512, 128)),
        (Option("l", "ints"), "", ()),
        (Option("l", "ints", minimum=1), (1, 2), (1, 2)),
    ],
    ids=lambda value: repr(value) if not isinstance(value, Option) else value.type,
)
def test_a_value_is_read_in_the_options_own_type(option: Option, given: object, expected: object) -> None:
    parsed = option.parse(given)

    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("option", "given", "says"),
    [
        (Option("n", "int"), "1.5", 'n takes a whole number, not "1.5".'),
        (Option("n", "int"), 1.5, 'n takes a whole number, not "1.5".'),
        (Option("n", "int"), True, 'n takes a whole number, not "True".'),
        (Option("x", "float"), "much", 'x takes a number, not "much".'),
        (Option("x", "float"), [1], 'x takes a number, not "[1]".'),
        (Option("x", "float"), False, 'x takes a number, not "False".'),
        (Option("s", "str"), 5, 's takes a text, not "5".'),
        (Option("b", "bool"), "maybe", 'b takes true or false, not "maybe".'),
        (Option("b", "bool"), 1, 'b takes true or false, not "1".'),
        (Option("l", "ints"), "1,two", 'l takes whole numbers such as 512,128, not "1,two".'),
        (Option("l", "ints"), 5, 'l takes whole numbers such as 512,128, not "5".'),
        (Option("l", "ints"), [1, True], 'l takes whole numbers such as 512,128, not "[1, True]".'),
        (Option("n", "int", minimum=1), "0", 'n is "0"; it must be at least 1.'),
        (Option("x", "float", minimum=0), -0.5, 'x is "-0.5"; it must be at least 0.'),
        (Option("x", "float", minimum=0.5), 0.4, 'x is "0.4"; it must be at least 0.5.'),
        (Option("x", "float"), "nan", 'x takes a number, not "nan".'),
        (Option("x", "float"), float("inf"), 'x takes a number, not "inf".'),
        (Option("l", "ints", minimum=1), "5,0", 'l is "5,0"; it must be at least 1.'),
        (Option("s", "str", choices=("hard", "semihard")), "easy", 's is "easy"; allowed are hard, semihard.'),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, Option) else value.type,
)
def test_a_wrong_value_is_refused_with_what_is_allowed(option: Option, given: object, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        option.parse(given)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no good", "int"), '"no good"'),
        (("n", "complex"), 'type "complex"; allowed are int, float, str, bool, ints'),
        (("n", "int", "many"), 'not "many"'),
        (("n", "int", 0, "", (), 1), '"0"; it must be at least 1'),
        (("s", "str", "c", "", ("a", "b")), '"c"; allowed are a, b'),
    ],
)
def test_an_option_that_cannot_be_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        Option(*arguments)
    assert says in str(caught.value)


MARGIN = Option("margin", "float", default=0.2)
SIZE = Option("size", "int", help="Width of the vectors.", required=True)


def test_options_are_the_given_values_and_the_defaults_of_the_rest() -> None:
    declared = (MARGIN, SIZE, Option("name", "str"))

    assert resolve_options(declared, {"size": "3"}, "it") == {"margin": 0.2, "size": 3, "name": None}
    assert resolve_options(declared, {"size": 3, "margin": None}, "it")["margin"] == 0.2
    assert resolve_options((), {}, "it") == {}


@pytest.mark.parametrize(
    ("declared", "given", "says"),
    [
        ([MARGIN], {"margn": 1}, 'loss x has no option "margn". Did you mean "margin"?\nIt has margin.'),
        ([MARGIN, SIZE], {"zzz": 1}, 'loss x has no option "zzz".\nIt has margin, size.'),
        ([], {"margin": 1}, 'loss x has no option "margin".\nIt has no options.'),
        ([SIZE], {}, "loss x needs the option size: Width of the vectors."),
        ([SIZE], {"size": None}, "loss x needs the option size: Width of the vectors."),
        ([MARGIN], {"margin": "big"}, 'loss x: margin takes a number, not "big".'),
    ],
)
def test_options_that_do_not_fit_are_refused(declared: list[Option], given: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_options(declared, given, "loss x")
    assert str(caught.value) == says


def backbone(**changes: Any) -> BackboneInfo:
    fields: dict[str, Any] = {
        "name": "tiny",
        "task": "text-to-text",
        "output_dim": 64,
        "architecture": "CNN",
        "description": "A small one",
    }
    return BackboneInfo(**fields | changes)


def test_a_row_knows_its_full_name_and_modalities() -> None:
    assert backbone(namespace="acme", name="a/b").full_name == "acme/a/b"
    taken = {task: backbone(task=task).modalities for task in TASKS}
    assert taken == {
        "all": ("vector",),
        "image-to-image": ("image",),
        "text-to-image": ("text", "image"),
        "text-to-text": ("text",),
    }


def test_the_namespace_which_the_core_fills_in_makes_no_other_row() -> None:
    assert backbone(namespace="acme") == backbone()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, 'backbone\'s name must be a text on one line, not ""'),
        ({"name": " padded"}, '" padded"'),
        ({"name": "bell\a"}, r'"bell\x07"'),
        ({"name": 7}, '"7"'),
        ({"task": "image-to-text"}, 'tiny: task is "image-to-text"; allowed are all, image-to-image, text-to-image'),
        ({"output_dim": 0}, 'tiny: output_dim must be a positive whole number, not "0"'),
        ({"output_dim": 64.0}, '"64.0"'),
        ({"output_dim": True}, '"True"'),
        ({"parameters": -1}, 'tiny: parameters must be a positive whole number, not "-1"'),
        ({"architecture": None}, 'tiny: architecture must be a text on one line, not "None"'),
        ({"description": "one\ntwo"}, r'tiny: description must be a text on one line, not "one\ntwo"'),
        ({"licence": 3}, 'tiny: licence must be a text on one line, not "3"'),
        ({"source": "\x1b[31m"}, r'tiny: source must be a text on one line, not "\x1b[31m"'),
        ({"poolings": ()}, "tiny: poolings must be a tuple with at least one name, not ()"),
        ({"poolings": "mean"}, "tiny: poolings must be a tuple with at least one name, not 'mean'"),
        ({"poolings": ("mean", 5)}, 'tiny: poolings[1] must be a text on one line, not "5"'),
        ({"options": [MARGIN]}, "tiny: options must be a tuple of Option, not \"[Option(name='margin'"),
        ({"options": ("margin",)}, "tiny: options must be a tuple of Option, not \"('margin',)\""),
        ({"options": (MARGIN, SIZE, MARGIN)}, "tiny: an option is declared twice among margin, size, margin"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_row_that_cannot_be_shown_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        backbone(**changes)
    assert says in str(caught.value)


def test_what_an_option_decides_may_be_left_open() -> None:
    assert backbone(output_dim=None, parameters=None, description="").output_dim is None


@pytest.mark.parametrize("kind", [PoolingInfo, LossInfo])
def test_poolings_and_losses_check_the_same(kind: type[PoolingInfo] | type[LossInfo]) -> None:
    word = "pooling" if kind is PoolingInfo else "loss"
    assert kind("good", "Fine", (MARGIN,)).options == (MARGIN,)
    for arguments, says in (
        (("not good", "Fine"), f'A {word}\'s name must be a text without spaces, not "not good".'),
        (("good", "two\nlines"), r'good: description must be a text on one line, not "two\nlines".'),
        (("good", "Fine", (MARGIN, MARGIN)), "good: an option is declared twice among margin, margin."),
    ):
        with pytest.raises(OptionError) as caught:
            kind(*arguments)
        assert str(caught.value) == says


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("resnet5", ["resnet50", "bert"], ' Did you mean "resnet50"?'),
        ("RESNET50", ["resnet50"], ' Did you mean "resnet50"?'),
        ("bert-base-cased", ["BERT-base-cased", "bert-base-uncased"], '"BERT-base-cased" or "bert-base-uncased"?'),
        ("aaa1", ["aaa2", "aaa3", "aaa4", "aaa5"], None),
        ("zzz", ["resnet50"], ""),
        ("anything", [], ""),
    ],
)
def test_near_names(name: str, known: list[str], expected: str | None) -> None:
    answer = near(name, known)
    if expected is None:
        assert answer.count(" or ") == 2, "no more than three are worth reading"
    else:
        assert answer.endswith(expected)
        assert bool(answer) == bool(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b", '"a b"'),
        (5, '"5"'),
        (None, '"None"'),
        ("größer", '"größer"'),
        ("one\ntwo\t", r'"one\ntwo\t"'),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("x" * 120, '"' + "x" * 120 + '"'),
        ("x" * 121, '"' + "x" * 58 + "..." + "x" * 59 + '"'),
    ],
    ids=repr,
)
def test_a_quoted_value_stays_on_one_line_of_readable_length(value: object, expected: str) -> None:
    assert quote(value) == expected


def test_many_names_are_listed_in_as_much_room() -> None:
    assert listed(["a", "b c"]) == "a, b c"
    assert len(listed(f"column {number}" for number in range(5000))) == 120
    assert listed(["two\nlines"]) == r"two\nlines"


@pytest.mark.parametrize("text", ["acme", "a", "acme-2", "my_plugin"])
def test_namespaces(text: str) -> None:
    assert is_namespace(text)


@pytest.mark.parametrize("text", ["", "Acme", "2acme", "-acme", "a/b", "a b", "acmé", "a.b", "acme\n"])
def test_what_is_no_namespace(text: str) -> None:
    assert not is_namespace(text)


def test_every_option_error_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(OptionError, FinetunerError)
    assert issubclass(OptionError, ValueError)
