"""The value objects that plugins hand to the core. Importing this module imports nothing heavy."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetuner_core.errors import OptionError

Modality = Literal["text", "image", "vector"]
Side = Literal["query", "document"]
OptionType = Literal["int", "float", "str", "bool", "ints"]
OptionValue = int | float | str | bool | tuple[int, ...] | None

MODALITIES_OF_TASK: Mapping[str, tuple[Modality, ...]] = {
    "all": ("vector",),
    "image-to-image": ("image",),
    "text-to-image": ("text", "image"),
    "text-to-text": ("text",),
}
TASKS: tuple[str, ...] = tuple(MODALITIES_OF_TASK)
FORMS: tuple[str, ...] = ("labelled", "pairs", "scored")
SIDES: tuple[Side, ...] = ("query", "document")

TOKEN_POOLINGS: tuple[str, ...] = ("mean", "max", "gem", "attention")
"""The core's poolings that any tokens can have, in whatever order they stand: those of a feature map, say."""

TEXT_POOLINGS: tuple[str, ...] = (*TOKEN_POOLINGS, "cls", "last", "weighted_mean")
"""The core's poolings of tokens that stand one after the other, as those of a text do."""

RESERVED_OPTIONS = ("name", "pretrained", "pooling", "pooling_options", "output_dim", "text_model")
"""Names that a backbone's options cannot have, since `build_model` takes them itself."""

_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]*")
_NAME = re.compile(r"\S+")

# Control characters of both sets, those that say which way letters run, and halves of letters, which cannot be written.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_namespace(text: str) -> bool:
    """Whether `text` can be a plugin's namespace: lower-case letters, digits, `-` and `_`, a letter first."""
    return _NAMESPACE.fullmatch(text) is not None


def near(name: str, known: Iterable[str]) -> str:
    """The names of `known` that are spelt like `name`, as the end of an error message.

    Args:
        name: what was typed.
        known: what there is.

    Returns:
        ` Did you mean "a" or "b"?`, or the empty string where nothing comes near.
    """
    # Compared without regard to case, shown as spelt.
    spelling = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), spelling, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(quote(spelling[match]) for match in matches)}?" if matches else ""


def quote(value: object) -> str:
    """`value` in double quotes, on one line and with its middle left out where it is long, for an error message."""
    text = str(value)
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return f'"{text if len(text) <= 120 else text[:58] + "..." + text[-59:]}"'


def printable(text: str) -> str:
    r"""A text for a terminal, in which nothing is left that could move its cursor, colour it, or turn its letters.

    Newlines and tabs stay. What a file holds may stand in a text: a header, a label, the name of a file.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, in no more room than `quote` takes: a file may have thousands of headers."""
    return quote(", ".join(names))[1:-1]


@dataclass(frozen=True)
class Option:
    """A setting that a backbone, a pooling or a loss takes by name.

    Args:
        name: the name, an identifier.
        type: what it holds; `ints` is a sequence of integers, written `512,128` on the command line.
        default: the value where none is given; `None` means "not set".
        help: one sentence for `finetuner show`.
        choices: the values that are allowed; empty where any is.
        minimum: the least value that is allowed, each one's for `ints`.
        required: whether it has to be given.

    Raises:
        OptionError: if the name is no identifier, or the default is not allowed.

    >>> Option("margin", "float", default=0.2, help="The margin.", minimum=0).parse("0.3")
    0.3
    """

    name: str
    type: OptionType
    default: OptionValue = None
    help: str = ""
    choices: tuple[OptionValue, ...] = ()
    minimum: float | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise OptionError(f"An option's name must be an identifier, but one is named {quote(self.name)}.")
        if self.type not in _READERS:
            raise OptionError(f"Option {self.name} has type {quote(self.type)}; allowed are {', '.join(_READERS)}.")
        if self.minimum is not None and self.type in ("str", "bool"):
            raise OptionError(f"Option {self.name} has a minimum, which no {self.type} has.")
        if self.default is not None:
            self.parse(self.default)

    def parse(self, value: object) -> OptionValue:
        """`value`, perhaps as typed on a command line, in the option's own type.

        Raises:
            OptionError: if it is of another type, or not allowed.
        """
        try:
            parsed = _READERS[self.type](value)
        except (TypeError, ValueError):
            raise OptionError(f"{self.name} takes {_TYPE_NAMES[self.type]}, not {quote(value)}.") from None
        if self.choices and parsed not in self.choices:
            raise OptionError(f"{self.name} is {quote(value)}; allowed are {', '.join(map(str, self.choices))}.")
        numbers = parsed if isinstance(parsed, tuple) else (parsed,)
        if self.minimum is not None and any(isinstance(n, int | float) and n < self.minimum for n in numbers):
            raise OptionError(f"{self.name} is {quote(value)}; it must be at least {self.minimum:g}.")
        return parsed


def _read_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _read_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _read_str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_bool(value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(value.lower())
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_ints(value: object) -> tuple[int, ...]:
    if isinstance(value, str):
        return tuple(int(part) for part in value.split(",") if part.strip())
    if not isinstance(value, Sequence):
        raise TypeError
    return tuple(_read_int(part) for part in value)


_READERS: Mapping[str, Callable[[object], OptionValue]] = {
    "int": _read_int,
    "float": _read_float,
    "str": _read_str,
    "bool": _read_bool,
    "ints": _read_ints,
}
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "ints": "whole numbers such as 512,128",
}


def resolve_options(declared: Sequence[Option], given: Mapping[str, object], owner: str) -> dict[str, OptionValue]:
    """The value of every declared option: the given one, or its default.

    Args:
        declared: the options that there are.
        given: values by name, as Python objects or as typed on a command line.
        owner: whose options they are, for the messages.

    Raises:
        OptionError: if a name is not declared, a value is not allowed, or a required one is missing.

    >>> resolve_options([Option("margin", "float", default=0.2)], {"margin": "0.3"}, "loss triplet")
    {'margin': 0.3}
    """
    known = {option.name: option for option in declared}
    for name in given:
        if name not in known:
            allowed = f"It has {', '.join(known)}." if known else "It has no options."
            raise OptionError(f"{owner} has no option {quote(name)}.{near(name, known)}\n{allowed}")
    values: dict[str, OptionValue] = {}
    for name, option in known.items():
        value = given.get(name)
        if value is None and option.required:
            raise OptionError(f"{owner} needs the option {name}: {option.help}")
        try:
            values[name] = option.default if value is None else option.parse(value)
        except OptionError as error:
            raise OptionError(f"{owner}: {error}") from None
    return values


def _check_text(owner: str, **texts: object) -> None:
    for field_name, text in texts.items():
        if not isinstance(text, str) or not text.isprintable():
            raise OptionError(f"{owner}: {field_name} must be a text on one line, not {quote(text)}.")


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.isprintable():
        raise OptionError(f"A {kind}'s name must be a text without spaces, not {quote(name)}.")


def _check_options(owner: str, options: object) -> None:
    if not isinstance(options, tuple) or not all(isinstance(option, Option) for option in options):
        raise OptionError(f"{owner}: options must be a tuple of Option, not {quote(options)}.")
    names = [option.name for option in options]
    if len(names) != len(set(names)):
        raise OptionError(f"{owner}: an option is declared twice among {', '.join(names)}.")


@dataclass(frozen=True)
class BackboneInfo:
    """A row of the table: a model that a plugin can load.

    Args:
        name: the name in the plugin's own ecosystem, such as `resnet50` or `openai/clip-vit-base-patch32`.
        task: one of `all`, `image-to-image`, `text-to-image`, `text-to-text`; it says which modalities there are.
        output_dim: the width of the embedding that the model emits with its first pooling, or `None` where that
            follows from an option.
        architecture: the family, in a word.
        description: one line for the table.
        poolings: the names of the poolings that the backbone supports, its default first. `native` is the backbone's
            own pooled vector. A backbone that supports any other gives token features, and with them takes the poolings
            that other plugins add.
        options: what `build_model(name, option=...)` takes. A network over vectors has an option `input_size`, which
            `fit` fills in from the data.
        licence: of the weights, as an SPDX identifier where there is one.
        source: where the weights come from, a URL or a folder.
        parameters: how many numbers the embedding model holds, the head left out; `None` where not known.
        namespace: the plugin's name. The core fills it in; a plugin leaves it empty.

    Raises:
        OptionError: if a field is not valid; the message names it.

    >>> row = BackboneInfo("tiny", "text-to-text", 64, "CNN", "A small one", poolings=("mean",))
    >>> row.modalities
    ('text',)
    """

    name: str
    task: str
    output_dim: int | None
    architecture: str
    description: str
    poolings: tuple[str, ...] = ("native",)
    options: tuple[Option, ...] = ()
    licence: str = ""
    source: str = ""
    parameters: int | None = None
    namespace: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        # The name of a folder is its path, which may hold spaces.
        if (
            not isinstance(self.name, str)
            or not self.name.isprintable()
            or self.name.strip() != self.name
            or not self.name
        ):
            raise OptionError(f"A backbone's name must be a text on one line, not {quote(self.name)}.")
        if self.task not in TASKS:
            raise OptionError(f"{self.name}: task is {quote(self.task)}; allowed are {', '.join(TASKS)}.")
        for field_name in ("output_dim", "parameters"):
            number = getattr(self, field_name)
            if number is not None and (type(number) is not int or number < 1):
                raise OptionError(f"{self.name}: {field_name} must be a positive whole number, not {quote(number)}.")
        _check_text(
            self.name,
            architecture=self.architecture,
            description=self.description,
            licence=self.licence,
            source=self.source,
        )
        if not isinstance(self.poolings, tuple) or not self.poolings:
            raise OptionError(f"{self.name}: poolings must be a tuple with at least one name, not {self.poolings!r}.")
        _check_text(self.name, **{f"poolings[{i}]": name for i, name in enumerate(self.poolings)})
        _check_options(self.name, self.options)
        for option in self.options:
            if option.name in RESERVED_OPTIONS:
                raise OptionError(f"{self.name}: no option can be named {option.name}, which build_model takes itself.")

    @property
    def full_name(self) -> str:
        """The unambiguous name, `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def has_tokens(self) -> bool:
        """Whether the backbone gives token features, which any pooling can be tried on, beside its own vector."""
        return any(pooling != "native" for pooling in self.poolings)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model takes; for text-to-image the query's modality first."""
        return MODALITIES_OF_TASK[self.task]


@dataclass(frozen=True)
class PoolingInfo:
    """A way to make one vector of a sequence of token features.

    Args:
        name: how it is asked for, `build_model(..., pooling=name)`.
        description: one line.
        options: what it takes.
    """

    name: str
    description: str
    options: tuple[Option, ...] = ()

    def __post_init__(self) -> None:
        _check_name("pooling", self.name)
        _check_text(self.name, description=self.description)
        _check_options(self.name, self.options)


@dataclass(frozen=True)
class LossInfo:
    """A loss over embeddings and their labels.

    Args:
        name: how it is asked for, `fit(..., loss=name)`.
        description: one line.
        options: what `fit(..., loss_options={...})` takes. One that is required and named `num_classes` is filled in by
            `fit` from labelled data.
        forms: the forms of data that it learns from: `labelled` where it compares the items of a batch among
            themselves, `pairs` where it takes `ref_emb` with labels, `scored` where it takes scores in their place.
    """

    name: str
    description: str
    options: tuple[Option, ...] = ()
    forms: tuple[str, ...] = ("labelled", "pairs")

    def __post_init__(self) -> None:
        _check_name("loss", self.name)
        _check_text(self.name, description=self.description)
        if not isinstance(self.forms, tuple) or not self.forms or not {*self.forms} <= {*FORMS}:
            raise OptionError(f"{self.name}: forms must be a tuple of {' or '.join(FORMS)}, not {quote(self.forms)}.")
        _check_options(self.name, self.options)
