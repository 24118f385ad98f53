"""A graph in int8, and how much of its vectors that keeps."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np

from finetuner_core.errors import ExportError

LEAST_COSINE = 0.9
"""Below this mean cosine to the float32 vectors a graph in int8 is another model, and is refused."""

GOOD_COSINE = 0.99
"""Below this it is worth a word."""

# What onnxruntime computes in int8 with ranges that it finds while it runs, on every CPU. Convolutions are not of it.
_OPERATORS = ["MatMul", "Gemm", "Gather"]


def write_int8(source: Path, target: Path) -> None:
    """Writes a graph whose matrices and tables are int8; activations are quantised while it runs (dynamically).

    Args:
        source: the graph in float32.
        target: where.

    Raises:
        ExportError: if nothing in it can be quantised.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # it recommends, for every graph, what it does not need
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(source, target, weight_type=QuantType.QInt8, op_types_to_quantize=_OPERATORS)
    finally:
        root.setLevel(level)
    kinds = {tensor.data_type for tensor in onnx.load(target, load_external_data=False).graph.initializer}
    if onnx.TensorProto.INT8 not in kinds:
        raise ExportError(
            "Nothing of this network can be written in int8: it is made of convolutions, which stay as they are.\n"
            "Export it without int8."
        )


def cosines(exact: np.ndarray, rounded: np.ndarray) -> tuple[float, float]:
    """Mean and least cosine between vectors (N, D) and what int8 makes of them."""
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    each = (exact * rounded).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return float(each.mean()), float(each.min())


def check_cosine(mean: float, least: float, what: str) -> None:
    """Whether int8 keeps what the vectors mean.

    Raises:
        ExportError: if not.
    """
    if not mean >= LEAST_COSINE:
        raise ExportError(
            f"In int8 the vectors of {what} have a mean cosine of {mean:.3f} to those of the model (the least is "
            f"{least:.3f}), below {LEAST_COSINE}: they would be another model's.\nExport it without int8."
        )
