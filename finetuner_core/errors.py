"""Every error that a person can cause, and its text.

A message has one or two lines: what was wrong, with the value; what is allowed, or what to do. The command line prints
the message alone and exits with code 2, so it must stand without a traceback.
"""

from __future__ import annotations

from pathlib import Path


class FinetunerError(Exception):
    """Base of all errors that Finetuner raises on purpose."""


class UnknownNameError(FinetunerError, LookupError):
    """A model, pooling, loss or task that nobody offers, or a name that two plugins offer."""


class PluginError(FinetunerError):
    """A plugin that is missing, broken, refused, or that failed in one of its hooks."""


class OptionError(FinetunerError, ValueError):
    """A setting that is unknown, of the wrong type, or out of its range."""


class DataError(FinetunerError, ValueError):
    """Data that cannot be read, or that does not fit the model or the loss."""


class WeightsError(FinetunerError):
    """Pretrained weights that are not there, or that do not fit the network."""


class FolderError(FinetunerError):
    """A folder that cannot be written to, or that does not hold a saved model."""


class TrainingError(FinetunerError):
    """A training run that cannot start, or that cannot go on."""


class Interrupted(TrainingError):  # noqa: N818  (nothing went wrong)
    """A training run that was asked to end, and that goes on where it was when it is started again.

    Args:
        message: how.
        exit_code: of the process: 130 after Ctrl-C, 143 after SIGTERM, 75 where the time was up.
        folder: that of the run.
    """

    def __init__(self, message: str, exit_code: int, folder: Path) -> None:
        super().__init__(message)
        self.exit_code, self.folder = exit_code, folder


class HubError(FinetunerError):
    """A model that the Hugging Face Hub cannot be given: no right, no network, or no such name."""


class ExportError(FinetunerError):
    """A model that cannot be written in another form, or whose vectors that form does not give."""
