"""Keeps what libraries print while they load away from the person, unless it was asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


def verbose() -> bool:
    """Whether a person wants to see what the libraries below print: `finetuner -v`, or FINETUNER_VERBOSE=1."""
    return os.environ.get("FINETUNER_VERBOSE", "") not in ("", "0")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within it, standard output and error, warnings and log records below ERROR go nowhere."""
    if verbose():
        yield
        return
    level, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(max(level, logging.WARNING))
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        # A library that logs through the module `logging` gives the root logger a handler, whose stream is the one that
        # goes nowhere: all later records would end in it.
        for handler in [handler for handler in logging.root.handlers if handler not in handlers]:
            logging.root.removeHandler(handler)
