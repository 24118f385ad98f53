"""open_clip itself, with a word where it cannot be imported, and kept from speaking in the program's name."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from finetuner_core.plugin import FinetunerError

try:
    import open_clip as _open_clip  # type: ignore[import-untyped]
except (ImportError, RuntimeError) as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise FinetunerError(f"open_clip cannot be imported: {reason}\nRun: finetuner doctor") from error

open_clip: Any = _open_clip
"""The library, which has no types."""

__all__ = ["need_transformers", "open_clip", "unheard"]


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Within it, what open_clip logs goes to the handlers that the program has set up, and to no other.

    open_clip logs with the functions of the module `logging`, of which the first that is called gives the root logger
    a handler where it has none. It would stay, and belong to whatever standard error was at that moment.
    """
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # It is said of an activation that is then chosen as the weights need it.
            warnings.filterwarnings("ignore", "QuickGELU mismatch")
            yield
    finally:
        logging.root.removeHandler(handler)


def need_transformers(name: str, what: str) -> None:
    """Asks for transformers, which open_clip needs for some models only.

    Args:
        name: the model's name.
        what: what of it is transformers'.

    Raises:
        FinetunerError: if it is not installed.
    """
    if find_spec("transformers") is None:
        raise FinetunerError(
            f"{name} has a {what} of transformers, which is not installed.\n"
            'Install it: pip install "finetuner-openclip[transformers]"'
        )
