"""A toy plugin that does all things right, or one of them wrong: the environment variable TOY_FAULT says which."""

from __future__ import annotations

import os


def fault(name: str) -> bool:
    """Whether it is this one that is planted. Read when it matters, so that a new process has it as well."""
    return os.environ.get("TOY_FAULT") == name
