"""`import finetuner`: the public names of `finetuner_core`, under the project's own name."""

from typing import TYPE_CHECKING

from finetuner_core import __all__, __dir__, __doc__, __getattr__  # noqa: F401

if TYPE_CHECKING:
    from finetuner_core import *  # noqa: F403
