"""From options to a loss of the library, with all that it is put together with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from finetuner_core.plugin import OptionError, OptionValue
from finetuner_metric_learning.loss import MaskedLoss, MinedLoss
from finetuner_metric_learning.parts import KINDS, MINER, Kind
from finetuner_metric_learning.repairs import REPAIRED
from finetuner_metric_learning.rows import LOSSES

_ROWS = {loss.name: loss for loss in LOSSES}
_MODULES: Mapping[str, Any] = {"distance": distances, "miner": miners, "reducer": reducers}

# What else the library would only find out in a batch, and not say.
_LIMITS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "delta": (lambda value: abs(2 / value - round(2 / value)) < 1e-6, "2 divided by a whole number"),
    "min_val": (lambda value: value < 0, "less than 0"),
    "momentum": (lambda value: value <= 1, "at most 1"),
    "miner_cutoff": (lambda value: value < 2, "less than 2, the greatest distance"),
    "miner_filter_percentage": (lambda value: value <= 1, "at most 1"),
}


def build(name: str, dim: int, options: Mapping[str, OptionValue]) -> MinedLoss:
    """The loss of that name.

    Args:
        name: of a row.
        dim: width of the embeddings.
        options: a value for each of the row's options; `None` leaves an argument as the library has it.

    Raises:
        OptionError: if options do not go together.
    """
    row = _ROWS[name]
    given = {option: value for option, value in options.items() if value is not None}
    for option, (allows, limit) in _LIMITS.items():
        if option in given and not allows(given[option]):
            raise OptionError(f'loss {name}: {option} is "{given[option]}"; it must be {limit}.')
    if "Similarity" in str(given.get("distance")) and float(str(given.get("distance_power", 1))) % 1:
        raise OptionError(
            f'loss {name}: distance_power is "{given["distance_power"]}"; it must be a whole number for similarities, '
            "which can be negative."
        )
    parts = {kind.name: _build_part(kind, given, name) for kind in KINDS}
    arguments: dict[str, Any] = {
        option: value for option, value in given.items() if not any(option.startswith(kind.name) for kind in KINDS)
    }
    if "triplets_per_anchor" in arguments:
        arguments["triplets_per_anchor"] = _read_count("triplets_per_anchor", arguments["triplets_per_anchor"])
    if row.width:
        arguments[row.width] = dim
    miner = parts.pop("miner")
    arguments |= {kind: part for kind, part in parts.items() if part is not None}
    loss = _construct(REPAIRED.get(name) or getattr(losses, name), arguments, name)
    # With swap, the library looks up the distance of a positive and a negative in the row of an anchor.
    swap = given.get("swap")
    kind = MaskedLoss if row.masks and not row.width and not swap else MinedLoss
    return kind(loss, miner, pairs=row.pairs and not swap, num_classes=arguments.get("num_classes"))


def _build_part(kind: Kind, given: Mapping[str, OptionValue], owner: str) -> Any:
    """The distance, the miner, ... that was asked for; `None` where none was."""
    prefix = f"{kind.name}_"
    arguments: dict[str, Any] = {
        option.removeprefix(prefix): value for option, value in given.items() if option.startswith(prefix)
    }
    name = given.get(kind.name)
    if name is None:
        if arguments:
            first = f"{prefix}{next(iter(arguments))}"
            raise OptionError(f"loss {owner}: {first} is given without a {kind.name}.\nGive {kind.name} as well.")
        return None
    known = [option.name for option in kind.classes[str(name)]]
    for argument in arguments:
        if argument not in known:
            allowed = f"It has {', '.join(prefix + option for option in known)}." if known else "It has no options."
            raise OptionError(f'loss {owner}: {name} has no option "{prefix}{argument}".\n{allowed}')
    if kind is MINER:
        for argument in ("allowed_pos_range", "allowed_neg_range"):
            if argument in arguments:
                arguments[argument] = _read_range(prefix + argument, arguments[argument])
        if "distance" in arguments:
            arguments["distance"] = getattr(distances, arguments["distance"])()
    return _construct(getattr(_MODULES.get(kind.name, regularizers), str(name)), arguments, owner)


def _construct(kind: Any, arguments: Mapping[str, Any], owner: str) -> Any:
    try:
        return kind(**arguments)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or "the values do not go together"
        raise OptionError(f"loss {owner}: {kind.__name__} cannot be built: {reason}.") from None


def _read_count(name: str, value: str) -> int | str:
    if value != "all" and not (value.isdecimal() and int(value) > 0):
        raise OptionError(f'{name} is "{value}"; it must be a whole number from 1 on, or all.')
    return value if value == "all" else int(value)


def _read_range(name: str, value: str) -> tuple[float, float]:
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        raise OptionError(f'{name} is "{value}"; it takes two numbers, such as 0.1,0.9.') from None
    return low, high
