"""Checks of a pooling that a plugin adds."""

from __future__ import annotations

import torch
from torch import Tensor

from finetuner_core.catalogue.registry import call, catalogue
from finetuner_core.interfaces import Features, Pooling
from finetuner_core.testing.backbone import TOLERANCE, farthest
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.values import resolve_options

DIM = 12


def check_width(subject: Subject) -> None:
    """Vectors are floats (B, dim), with the pooling's own `dim`."""
    pooling = _build(subject)
    vectors = pooling(_features())
    found = f"{vectors.dtype} {tuple(vectors.shape)}"
    require(
        vectors.is_floating_point() and vectors.shape == (3, pooling.dim),
        f"{subject.full_name}: of three items come {found}, and its dim is {pooling.dim}.",
        "Give float (B, dim); set dim where it is not the width of the tokens.",
    )


def check_padding(subject: Subject) -> None:
    """Padding on the right or on the left, whatever it holds, does not change a vector."""
    pooling, features = _build(subject), _features()
    padding = torch.full((3, 4, DIM), 1e4)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    with torch.inference_mode():
        expected = pooling(features)
        for side, order in (("right", (0, 1)), ("left", (1, 0))):
            tokens = torch.cat([(features.tokens, padding)[place] for place in order], 1)
            mask = torch.cat([(features.mask, hidden)[place] for place in order], 1)
            difference = farthest(pooling(Features(tokens, mask)), expected)
            require(
                difference < TOLERANCE,
                f"{subject.full_name}: padding on the {side} changes vectors by {difference:.2g}.",
                "Use the mask: fill what it hides, and find the first or the last token by it.",
            )


def check_one_token(subject: Subject) -> None:
    """The vector of one token is finite: a feature map may have one position, and an empty text one token."""
    with torch.inference_mode():
        vectors = _build(subject)(Features.of_vectors(_features().tokens[:, 0]))
    require(
        bool(vectors.isfinite().all()),
        f"{subject.full_name} makes NaN or infinite numbers of one token.",
        "Divide by no count less one, and take no deviation of one.",
    )


def check_gradient(subject: Subject) -> None:
    """A finite gradient reaches the tokens and every parameter of the pooling, and nothing of it goes to padding."""
    pooling, features = _build(subject), _features()
    with torch.no_grad():
        for number, parameter in enumerate(pooling.parameters()):
            parameter.add_(_noise(number, *parameter.shape) * 0.1)
    tokens = features.tokens.clone().requires_grad_(True)
    vectors: Tensor = pooling(Features(tokens, features.mask))
    torch.autograd.backward((vectors * _noise(9, *vectors.shape)).sum())
    gradient = tokens.grad
    require(
        gradient is not None and bool(gradient.any()) and bool(gradient.isfinite().all()),
        f"{subject.full_name}: the tokens get no finite gradient.",
        "Compute with torch, without detach() and without numpy.",
    )
    assert gradient is not None
    require(
        not gradient[~features.mask].any(),
        f"{subject.full_name}: a gradient goes to padding.",
        "Use the mask: fill what it hides.",
    )
    unused = [name for name, it in pooling.named_parameters() if it.grad is None or not it.grad.any()]
    require(
        not unused, f"{subject.full_name}: {', '.join(unused)} gets no gradient.", "Delete it, or let it have a part."
    )


def _build(subject: Subject) -> Pooling:
    plugin, info = catalogue().find_pooling(subject.full_name)
    options = resolve_options(info.options, subject.options, f"pooling {subject.name}")
    pooling = call(plugin, "build_pooling", info=info, dim=DIM, options=options)
    if not isinstance(pooling, Pooling) or not isinstance(getattr(pooling, "dim", None), int):
        fail(
            f"build_pooling gives {type(pooling).__name__} for {subject.name}.",
            "Give a finetuner_core.interfaces.Pooling, which has a dim.",
        )
    return pooling.eval()


def _features() -> Features:
    """Three items of five tokens and less: padding on the right, on the left, and none."""
    mask = torch.tensor([[True] * 3 + [False] * 2, [False] * 2 + [True] * 3, [True] * 5])
    return Features(_noise(0, 3, 5, DIM), mask)


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
