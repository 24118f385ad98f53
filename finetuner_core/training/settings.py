"""How a model is trained, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

from finetuner_core.errors import OptionError
from finetuner_core.values import SIDES, near, quote

Schedule = Literal["cosine", "linear"]
Precision = Literal["auto", "float32", "bfloat16"]
Augment = Literal["auto", "none", "crop", "crop+mirror"]

_MINIMA = {
    "epochs": 1,
    "batch_size": 2,
    "weight_decay": 0,
    "warmup": 0,
    "max_grad_norm": 0,
    "seed": 0,
    "workers": 0,
    "views": 1,
}
_WHOLE = ("epochs", "batch_size", "seed", "workers", "views")
_COUNTS = {
    "lora": "the rank of the matrices, such as 8",
    "eval_every": "a number of steps, such as 100",
    "patience": "a number of evaluations, such as 3",
    "memory": "a number of items, such as 4096",
    "chunk_size": "a number of items, such as 32",
}
_MAX_SEED = 2**64 - 1
_FREEZABLE = ("backbone", "text", "image", "vector", *SIDES)
_CHOICES = {"schedule": get_args(Schedule), "precision": get_args(Precision), "augment": get_args(Augment)}


@dataclass(frozen=True)
class Settings:
    """How a model is trained; `finetuner_core.training.fit.fit` says what each setting means.

    Raises:
        OptionError: if a value is out of its range.
    """

    epochs: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float
    warmup: float
    schedule: Schedule
    max_grad_norm: float
    freeze: str | int | None
    lora: int | None
    eval_every: int | None
    patience: int | None
    matryoshka: tuple[int, ...]
    memory: int | None
    augment: Augment
    precision: Precision
    device: str
    seed: int
    chunk_size: int | None
    workers: int
    skip_bad_steps: bool
    views: int

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            if not isinstance(value, Integral if name in _WHOLE else Real):
                kind = "a whole number" if name in _WHOLE else "a number"
                raise OptionError(f"{name} is {quote(value)}; it must be {kind}, at least {minimum}.")
            if not float(value) >= minimum:
                raise OptionError(f"{name} is {value}; it must be at least {minimum}.")
        if self.seed > _MAX_SEED:
            raise OptionError(f"seed is {self.seed}; it must be at most {_MAX_SEED}.")
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, Real) and 0 < float(rate) < math.inf):
            raise OptionError(f"learning_rate is {quote(rate)}; it must be a number, more than 0.")
        if not self.warmup < 1:
            raise OptionError(f"warmup is {self.warmup}; it is a share of the steps, less than 1.")
        for name, choices in _CHOICES.items():
            chosen = getattr(self, name)
            if chosen not in choices:
                allowed = ", ".join(choices)
                raise OptionError(f"{name} is {quote(chosen)}; allowed are {allowed}.{near(str(chosen), choices)}")
        is_count = isinstance(self.freeze, int) and not isinstance(self.freeze, bool) and self.freeze >= 1
        if self.freeze not in (None, *_FREEZABLE) and not is_count:
            raise OptionError(
                f"freeze is {quote(self.freeze)}; it is backbone, the tower of text, image, query or document, or how "
                f"many of its first stages, such as 2.{near(str(self.freeze), _FREEZABLE)}"
            )
        for name, meaning in _COUNTS.items():
            count = getattr(self, name)
            if count is not None and (type(count) is not int or count < 1):
                raise OptionError(f"{name} is {quote(count)}; it is {meaning}.")
        if self.patience is not None and self.eval_every is None:
            raise OptionError("patience counts the evaluations in the middle of training: give eval_every as well.")
        if any(type(width) is not int or width < 1 for width in self.matryoshka):
            raise OptionError(f"matryoshka is {quote(self.matryoshka)}; it is widths, such as 64,128,256.")
        if self.lora is not None and self.freeze is not None:
            raise OptionError("With lora the backbone stays as it is: freeze does not go with it.")
