"""Finetuner: pretrained backbones as embedding models, fine-tuned for search.

Importing this package imports nothing heavy: what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetuner_core.catalogue.table import describe_models, list_models
    from finetuner_core.data.dataset import Column, Dataset
    from finetuner_core.data.search_set import SearchSet
    from finetuner_core.data.sources import TrainingSet
    from finetuner_core.encoding.encode import encode
    from finetuner_core.encoding.quantize import quantize
    from finetuner_core.encoding.report import EncodingResult
    from finetuner_core.errors import FinetunerError
    from finetuner_core.evaluation.evaluate import evaluate
    from finetuner_core.evaluation.result import Evaluation, compare
    from finetuner_core.export.export import ExportResult, export
    from finetuner_core.mining.mine import mine
    from finetuner_core.mining.report import MiningResult
    from finetuner_core.modeling.build import build_model, load
    from finetuner_core.modeling.embedding_model import EmbeddingModel
    from finetuner_core.training.fit import fit
    from finetuner_core.training.result import FitResult

__all__ = [
    "Column",
    "Dataset",
    "EmbeddingModel",
    "EncodingResult",
    "Evaluation",
    "ExportResult",
    "FinetunerError",
    "FitResult",
    "MiningResult",
    "SearchSet",
    "TrainingSet",
    "build_model",
    "compare",
    "describe_models",
    "encode",
    "evaluate",
    "export",
    "fit",
    "list_models",
    "load",
    "mine",
    "quantize",
]

_HOME = {
    "Column": "finetuner_core.data.dataset",
    "Dataset": "finetuner_core.data.dataset",
    "EmbeddingModel": "finetuner_core.modeling.embedding_model",
    "EncodingResult": "finetuner_core.encoding.report",
    "Evaluation": "finetuner_core.evaluation.result",
    "ExportResult": "finetuner_core.export.export",
    "FinetunerError": "finetuner_core.errors",
    "FitResult": "finetuner_core.training.result",
    "MiningResult": "finetuner_core.mining.report",
    "SearchSet": "finetuner_core.data.search_set",
    "TrainingSet": "finetuner_core.data.sources",
    "build_model": "finetuner_core.modeling.build",
    "compare": "finetuner_core.evaluation.result",
    "describe_models": "finetuner_core.catalogue.table",
    "encode": "finetuner_core.encoding.encode",
    "evaluate": "finetuner_core.evaluation.evaluate",
    "export": "finetuner_core.export.export",
    "fit": "finetuner_core.training.fit",
    "list_models": "finetuner_core.catalogue.table",
    "load": "finetuner_core.modeling.build",
    "mine": "finetuner_core.mining.mine",
    "quantize": "finetuner_core.encoding.quantize",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'finetuner' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numpy", "safetensors", "tqdm"):
            raise
        from finetuner_core.errors import PluginError

        raise PluginError(
            f"finetuner.{name} needs {error.name}, which is not installed.\n"
            "It comes with every plugin that has a network, such as: pip install finetuner-mlp"
        ) from None


def __dir__() -> list[str]:
    return sorted(__all__)
