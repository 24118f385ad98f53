"""An encoder as an ONNX graph, and its vectors by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetuner_core.errors import ExportError, PluginError
from finetuner_core.interfaces import Batch, Prepared, Preprocess
from finetuner_core.modeling.encoder import Encoder

OUTPUT = "embeddings"

# A file of Protocol Buffers ends at 2 GiB; weights beyond that lie in a file beside it.
_LARGEST = 3 * 2**29


class _Whole(nn.Module):
    """An encoder that takes its tensors one by one, as a graph's inputs come."""

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        vectors: Tensor = self.encoder(dict(zip(self.names, tensors, strict=True)))
        return vectors


def need_libraries() -> None:
    """Says what to install where an export's libraries are missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except ImportError:
            raise PluginError(
                f"An export to ONNX needs {name}, which is not installed.\nRun: pip install finetuner-core[onnx]"
            ) from None


def axes_of(preprocess: Preprocess, prepared: Sequence[Prepared]) -> dict[str, list[str | int]]:
    """The shape of each input: numbers, and names where batches differ.

    Args:
        preprocess: makes the batches.
        prepared: items, of different lengths where they have one.
    """
    ordered = sorted(prepared, key=preprocess.length)
    short, long = preprocess.collate(ordered[:2]), preprocess.collate(ordered[-3:])
    shapes: dict[str, list[str | int]] = {}
    for name, tensor in short.items():
        varied = [a != b for a, b in zip(tensor.shape, long[name].shape, strict=True)]
        shapes[name] = [
            ("batch" if axis == 0 else "length") if differs else size
            for axis, (size, differs) in enumerate(zip(tensor.shape, varied, strict=True))
        ]
    return shapes


def write_graph(encoder: Encoder, batch: Batch, axes: Mapping[str, Sequence[str | int]], file: Path) -> None:
    """Follows an encoder over one batch and writes what it does, for batches of any size and length.

    Args:
        encoder: on the CPU, in evaluation mode.
        batch: of more than one item.
        axes: the shape of each input, as `axes_of` gives it.
        file: where.

    Raises:
        ExportError: if what the encoder does cannot be followed.
    """
    names = list(batch)
    shapes = tuple(
        {number: torch.export.Dim.DYNAMIC for number, axis in enumerate(axes[name]) if isinstance(axis, str)}
        for name in names
    )
    size = sum(parameter.numel() * parameter.element_size() for parameter in encoder.parameters())
    try:
        with encoder.extractor.traceable(), torch.no_grad(), _quiet():
            torch.onnx.export(
                _Whole(encoder, names).eval(),
                tuple(batch[name] for name in names),
                file,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes=(shapes,),
                external_data=size > _LARGEST,
            )
    except Exception as error:  # whatever an operator without a counterpart raises
        reason = next((line.strip() for line in _root(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"This network cannot be written as ONNX by torch {torch.__version__}: {reason}\n"
            "Open the saved folder in its own library instead; its card (README.md) says how."
        ) from error


class Session:
    """A graph that onnxruntime computes.

    Args:
        file: the graph.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name for one in self._session.get_inputs()}

    def vectors(self, preprocess: Preprocess, prepared: Sequence[Prepared], batch_size: int) -> np.ndarray:
        """Embeddings float32 (N, D), each of length 1, a few items at a time in their order."""
        parts = []
        for start in range(0, len(prepared), batch_size):
            batch = preprocess.collate(prepared[start : start + batch_size])
            feed = {name: tensor.numpy() for name, tensor in batch.items() if name in self._inputs}
            parts.append(self._session.run([OUTPUT], feed)[0])
        return np.concatenate(parts)


def _root(error: BaseException) -> str:
    """What the innermost of the errors that were raised from one another says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it, the exporter does not talk about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
