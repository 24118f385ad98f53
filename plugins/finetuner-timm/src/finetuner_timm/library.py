"""timm itself, with a word where it cannot be imported."""

from __future__ import annotations

from typing import Any

from finetuner_core.catalogue.doctor import torchvision_mismatch
from finetuner_core.plugin import FinetunerError

try:
    import timm as _timm
except (ImportError, RuntimeError) as error:
    from importlib.metadata import PackageNotFoundError, version

    def _version(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    cure = torchvision_mismatch(_version("torch"), _version("torchvision")) or "Run: finetuner doctor"
    reason = " ".join(str(error).split()) or type(error).__name__
    raise FinetunerError(f"timm cannot be imported: {reason}\n{cure}") from error

timm: Any = _timm
"""The library, of which only parts are typed."""

__all__ = ["timm"]
