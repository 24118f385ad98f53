"""Networks that have no embedding to give."""

from __future__ import annotations

from finetuner_core.plugin import FinetunerError


class NoEmbeddingError(FinetunerError):
    """An architecture that does not make one vector of an image."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name} has no embedding to give: {reason}.\nUse an architecture that gives one: finetuner list"
        )
