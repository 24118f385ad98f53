"""What a plugin's entry-point module imports. It is light: no torch, no numpy.

A plugin is a module with functions marked `@hookimpl`, each an implementation of a hook of
`finetuner_core.hookspecs`, and one entry point in the group `finetuner.plugins.v1`:

    [project.entry-points."finetuner.plugins.v1"]
    acme = "finetuner_acme.plugin"

The entry's name is the namespace of the plugin's models: `acme/tiny`. What needs torch is imported inside the hooks
that may import it; its half of the contract is `finetuner_core.interfaces`.
"""

from __future__ import annotations

import pluggy

from finetuner_core.errors import DataError, FinetunerError, OptionError, WeightsError
from finetuner_core.hookspecs import PROJECT
from finetuner_core.values import (
    TEXT_POOLINGS,
    TOKEN_POOLINGS,
    BackboneInfo,
    LossInfo,
    Modality,
    Option,
    OptionValue,
    PoolingInfo,
    Side,
)

hookimpl = pluggy.HookimplMarker(PROJECT)

__all__ = [
    "TEXT_POOLINGS",
    "TOKEN_POOLINGS",
    "BackboneInfo",
    "DataError",
    "FinetunerError",
    "LossInfo",
    "Modality",
    "Option",
    "OptionError",
    "OptionValue",
    "PoolingInfo",
    "Side",
    "WeightsError",
    "hookimpl",
]
