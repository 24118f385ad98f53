"""Every setting that can be wrong, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetuner_core.errors import OptionError
from finetuner_core.training.settings import Settings

RIGHT: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": None,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "schedule": "cosine",
    "max_grad_norm": 1.0,
    "freeze": None,
    "lora": None,
    "eval_every": None,
    "patience": None,
    "matryoshka": (),
    "memory": None,
    "augment": "auto",
    "precision": "auto",
    "device": "auto",
    "seed": 0,
    "chunk_size": None,
    "workers": 1,
    "skip_bad_steps": False,
    "views": 4,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 1),
        ("epochs", np.int64(3)),
        ("batch_size", 2),
        ("learning_rate", 1),
        ("learning_rate", 1e-9),
        ("weight_decay", 0),
        ("warmup", 0),
        ("warmup", 0.99),
        ("schedule", "linear"),
        ("max_grad_norm", 0),
        ("freeze", "backbone"),
        ("freeze", 3),
        ("chunk_size", 1),
        ("workers", 0),
        ("views", 1),
        ("freeze", "image"),
        ("freeze", "query"),
        ("lora", 8),
        ("augment", "crop+mirror"),
        ("precision", "bfloat16"),
        ("seed", 2**64 - 1),
    ],
)
def test_what_is_right_is_kept(name: str, value: object) -> None:
    assert getattr(Settings(**RIGHT | {name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "it must be at least 1"),
        ("epochs", 2.5, "it must be a whole number, at least 1"),
        ("epochs", "5", "it must be a whole number, at least 1"),
        ("epochs", None, "it must be a whole number, at least 1"),
        ("batch_size", 1, "it must be at least 2"),
        ("batch_size", 32.0, "it must be a whole number, at least 2"),
        ("learning_rate", 0, "it must be a number, more than 0"),
        ("learning_rate", -1e-3, "it must be a number, more than 0"),
        ("learning_rate", float("nan"), "it must be a number, more than 0"),
        ("learning_rate", "fast", "it must be a number, more than 0"),
        ("weight_decay", -0.1, "it must be at least 0"),
        ("weight_decay", float("nan"), "it must be at least 0"),
        ("warmup", -0.1, "it must be at least 0"),
        ("warmup", 1, "less than 1"),
        ("warmup", "slow", "it must be a number, at least 0"),
        ("schedule", "cosin", 'allowed are cosine, linear. Did you mean "cosine"?'),
        ("schedule", None, "allowed are cosine, linear"),
        ("max_grad_norm", -1, "it must be at least 0"),
        ("freeze", "head", "it is backbone, the tower of text, image, query or document, or how"),
        ("freeze", 0, "it is backbone, the tower of text, image, query or document, or how"),
        ("freeze", -1, "it is backbone, the tower of text, image, query or document, or how"),
        ("freeze", True, "it is backbone, the tower of text, image, query or document, or how"),
        ("freeze", 1.5, "it is backbone, the tower of text, image, query or document, or how"),
        ("freeze", "txt", 'Did you mean "text"?'),
        ("lora", 0, "it is the rank of the matrices, such as 8"),
        ("lora", "8", "it is the rank of the matrices, such as 8"),
        ("lora", True, "it is the rank of the matrices, such as 8"),
        ("augment", "mirror", 'allowed are auto, none, crop, crop+mirror. Did you mean "crop+mirror"?'),
        ("precision", "float16", 'allowed are auto, float32, bfloat16. Did you mean "bfloat16" or "float32"?'),
        ("chunk_size", 0, "it is a number of items, such as 32"),
        ("workers", -1, "it must be at least 0"),
        ("workers", 1.5, "it must be a whole number, at least 0"),
        ("views", 0, "it must be at least 1"),
        ("seed", -1, "it must be at least 0"),
        ("seed", 2**64, "it must be at most 18446744073709551615"),
        ("seed", 0.5, "it must be a whole number, at least 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(OptionError) as caught:
        Settings(**RIGHT | {name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
    assert str(value) in message
    assert allowed in message


def test_lora_and_freezing_do_not_go_together() -> None:
    with pytest.raises(OptionError, match="freeze does not go with it"):
        Settings(**RIGHT | {"lora": 8, "freeze": 1})
