"""The conformance kit: what a plugin has to do right, as tests that its author gets for one line.

    import pytest
    from finetuner_core.testing import checks_for

    @pytest.mark.parametrize("check", checks_for("acme", backbones=["tiny"]))
    def test_conformance(check):
        check()

Each check is a test of its own, named `metadata-<check>`, `<backbone>-<check>`, `pooling-<name>-<check>` or
`loss-<name>-<check>`. None is ever skipped. Backbones are built with random weights, so no check needs a network.

Of the plugin; these need no torch:

    metadata-entry_point    one entry point of the group has the namespace, and its plugin loads
    metadata-light_import   importing and listing it imports nothing heavy
    metadata-same_rows      it lists the same rows each time, in a new process as well
    metadata-no_socket      listing asks no network
    metadata-rows           its rows say what is so, and their full names mean them

Of each backbone:

    modalities              there is an encoder and a preprocess for each modality of the task
    preprocess              items are prepared one by one and in order, and collated with the batch first
    pickle                  the preprocess and what it prepares can go to another process
    inputs                  an empty text, a picture of one pixel and the like give finite vectors
    features                tokens are float (B, T, D), the mask bool (B, T), and each item has a real token
    width                   the vectors are as wide as the row and the extractor say
    distinct                different items have different vectors
    batch                   an item's vector does not depend on what is in the batch with it
    order                   it does not depend on where in the batch it stands
    padding                 it does not depend on how long, or how large, its neighbours are
    eval                    nothing is random or counted in evaluation: dropout is off, batch norms stand still
    bf16                    vectors and gradients are finite in bfloat16
    gradient                every parameter has a part in the vector, with each pooling of the row
    stages                  the stages hold every parameter, once
    save                    what is saved and loaded gives the same vectors, bit by bit
    leftovers               nothing is saved that has no part in the vector, such as a head
    unknown_option          an option that the row does not have is refused by name
    offline                 `pretrained=False` asks no network

Of each pooling that the plugin adds:

    width                   vectors are (B, dim)
    padding                 padding, on whichever side and whatever it holds, does not change them
    one_token               they are finite where there is one token
    gradient                every real token and every parameter gets a gradient, and padding none

Of each loss that it adds:

    scalar                  it is one finite number
    gradient                embeddings and parameters get a finite gradient
    references              it takes references, finite and with a gradient as well
    scored                  so it does scores, or scored data are refused by its name
    excluded                where it takes `excluded`, these pairs do not count
    no_pairs                without a pair it is a zero that can be differentiated
    order                   neither the order of the batch nor the numbers that stand for labels matter
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetuner_core.errors import FinetunerError, OptionError
from finetuner_core.testing.check import Check, CheckError, all_checks
from finetuner_core.values import RESERVED_OPTIONS, near, quote

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

__all__ = ["Check", "CheckError", "checks_for"]

Names = Sequence[str] | Mapping[str, Mapping[str, object]]
"""Names, or names with the options that each is built with."""


def checks_for(
    namespace: str,
    *,
    backbones: Names = (),
    poolings: Names = (),
    losses: Names = (),
    expected_failures: Mapping[str, str] | None = None,
) -> list[ParameterSet]:
    """The checks of a plugin, for `pytest.mark.parametrize`.

    Args:
        namespace: the plugin's, the name of its entry point.
        backbones: which of its backbones to check, listed or not, without the namespace. Where one has options that are
            required, a mapping gives them: `{"mlp": {"input_size": 8}}`.
        poolings: which of its poolings to check.
        losses: which of its losses to check.
        expected_failures: for the id of a check that is known to fail, why. A check of these that passes fails.

    Returns:
        One parameter for each check, with its id.

    Raises:
        OptionError: if an id of `expected_failures` is none of the checks, or something is not of its kind.
        FinetunerError: if pytest is not installed.

    >>> [parameter.id for parameter in checks_for("acme")][:2]
    ['metadata-entry_point', 'metadata-light_import']
    """
    try:
        import pytest
    except ModuleNotFoundError:
        raise FinetunerError(
            "finetuner_core.testing needs pytest, which is not installed.\nInstall it: pip install pytest"
        ) from None
    checks = all_checks(
        namespace,
        backbones=_options_of("backbones", backbones, namespace),
        poolings=_options_of("poolings", poolings, namespace),
        losses=_options_of("losses", losses, namespace),
    )
    for name, options in backbones.items() if isinstance(backbones, Mapping) else ():
        if reserved := sorted(set(options) & set(RESERVED_OPTIONS)):
            raise OptionError(f"backbones sets {reserved[0]} for {quote(name)}, which the checks choose themselves.")
    reasons = dict(expected_failures or {})
    ids = [check.id for check in checks]
    for name, reason in reasons.items():
        if name not in ids:
            raise OptionError(
                f"expected_failures names {quote(name)}, which is no check.{near(name, ids)}\n"
                "Write an id as pytest shows it, such as "
                f"{quote(ids[-1])}."
            )
        if not isinstance(reason, str) or not reason.strip():
            raise OptionError(f"expected_failures has no reason for {quote(name)}: say in a text why it fails.")
    return [
        pytest.param(
            check,
            id=check.id,
            marks=[pytest.mark.xfail(reason=reasons[check.id], strict=True)] if check.id in reasons else [],
        )
        for check in checks
    ]


def _options_of(what: str, names: Names, namespace: str) -> dict[str, Mapping[str, object]]:
    if isinstance(names, str) or not isinstance(names, Sequence | Mapping):
        raise OptionError(f'{what} takes a list of names, not {quote(names)}: write {what}=["name"].')
    given = names if isinstance(names, Mapping) else {name: {} for name in names}
    if len(given) != len(names):
        raise OptionError(f"{what} names one twice: {', '.join(map(str, names))}.")
    for name, options in given.items():
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise OptionError(f"{what} takes names, each with a mapping of options, not {quote(name)}: {options!r}.")
    return {name.removeprefix(f"{namespace}/"): options for name, options in given.items()}
