"""timm itself, with a word where it cannot be imported."""

from __future__ import annotations

from finetuner_core.catalogue.doctor import torchvision_mismatch
from finetuner_core.plugin import FinetunerError

try:
    import timm
except (ImportError, RuntimeError) as error:
    from importlib.metadata import PackageNotFoundError, version

    def _version(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    cure = torchvision_mismatch(_version("torch"), _version("torchvision")) or "Run: finetuner doctor"
    raise FinetunerError(f"timm cannot be imported: {str(error).splitlines()[0]}\n{cure}") from error

__all__ = ["timm"]
