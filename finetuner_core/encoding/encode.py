"""`encode`: from a model and data to a file of vectors."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.data.dataset import Column
from finetuner_core.encoding.fingerprint import computed_by, of_items, of_model
from finetuner_core.encoding.items import as_column
from finetuner_core.encoding.output import check_out, ranges_beside
from finetuner_core.encoding.partial import Partial
from finetuner_core.encoding.quantize import STORED, DType, check_dtype, quantize, ranges_of, read_ranges, stored_width
from finetuner_core.encoding.report import EncodingResult, Progress
from finetuner_core.errors import DataError, FolderError
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.device import choose_device
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import Modality, Side

# How many items are encoded between two writes: all that is in memory, and all that a run that is killed loses. The
# windows are the same wherever a run goes on, so that the batches are, and with them the vectors to the last bit.
_WINDOW: dict[Modality, int] = {"text": 4096, "image": 512, "vector": 8192}

# Of so many items ranges are calibrated: a twentieth of all, but not fewer and not more than these.
_LEAST, _MOST = 1024, 4096

_Embed = Callable[[Sequence[int] | np.ndarray], tuple[np.ndarray, int]]


def encode(
    model: EmbeddingModel | str | Path,
    data: Any,
    out: str | Path,
    *,
    dtype: DType = "float32",
    ranges: np.ndarray | str | Path | None = None,
    column: str | None = None,
    modality: Modality | None = None,
    side: Side | None = None,
    width: int | None = None,
    batch_size: int | None = None,
    encoding: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> EncodingResult:
    """Writes the embeddings of any number of items into a file, in their order.

    Memory does not grow with them. What is done lies in a folder beside `out`, `.NAME.partial`, until all is: a run
    that was stopped goes on there when it is called again in the same way, and writes the same bytes.

    Args:
        model: a model, the folder of a saved one, or a name.
        data: a file or folder, a frame, rows as mappings; or items: a `Column`, an array (N, D), a list.
        out: the file to write, `.npy` or `.parquet` (one column, `vectors`). One that is there is replaced.
        dtype: how each number is written: `float32`, `float16`, `int8`, or `binary` for a bit of each; see `quantize`.
        ranges: for `int8`, ranges (2, D) or the file of them, such as those of a corpus for its queries; else they are
            calibrated on 1,024 to 4,096 items, spread over the data. They are written beside the file, as
            `NAME.ranges.npy`.
        column: which column of the data; else the one that fits the model.
        modality: what the items are, for a model that takes more than one.
        side: `query` for what asks, `document` for what is found, where that makes a difference for the model.
        width: how many numbers of each vector are kept, as `EmbeddingModel.encode` has it.
        batch_size: how many items are computed at a time.
        encoding: of a file of text that is neither UTF-8 nor says so itself, such as `"cp1252"`.
        device: where a model that is not built yet computes: `cuda`, `mps`, `cpu`, or `auto` for the best there is.
        quiet: whether to print nothing.

    Returns:
        What was written.

    Raises:
        FinetunerError: if the model or the data cannot be had, or do not fit; if an embedding is not finite; if the
            file cannot be written; or if what lies beside it was begun with another model, other data or settings.
        KeyboardInterrupt: if it was stopped; its text says how far it came.
    """
    check_dtype(dtype, has_ranges=ranges is not None)
    file = check_out(out)
    if isinstance(data, str | Path) and Path(data).expanduser().absolute() == file:
        raise FolderError(f"{out} holds what is to be encoded, and would be replaced.\nWrite to another file.")
    info = model.info if isinstance(model, EmbeddingModel) else find_row(model_name(model))
    items, source = as_column(data, info, column, modality, encoding)
    if not isinstance(model, EmbeddingModel):
        model = build_model(model_name(model)).to(choose_device(device))
    embed = _embedder(model, items, side, batch_size, width)
    kept = embed([0])[0].shape[1]  # which says what does not fit before anything is written
    if ranges is not None:
        ranges = read_ranges(ranges, kept)
    window = _WINDOW[items.modality]
    settings = {"dtype": dtype, "width": kept, "side": side, "batch_size": batch_size, "window": window}
    made_from = {
        "model": (info.full_name, of_model(model, items.modality, side)),
        "data": (source, of_items(items)),
        "ranges": ("calibrated", "") if ranges is None else ("given", hashlib.sha256(ranges.tobytes()).hexdigest()),
        **{name: (str(value), str(value)) for name, value in {**settings, **computed_by(model)}.items()},
    }
    shape = (len(items), stored_width(kept, dtype))
    size = shape[0] * shape[1] * np.dtype(STORED[dtype]).itemsize
    with _writing(out, f"\nThe vectors take {size / 1e6:,.1f} MB."):
        partial = Partial(file, shape, STORED[dtype], made_from)
    progress = Progress(quiet=quiet)
    if partial.rows:
        progress.line(f"Going on at row {partial.rows:,} of {len(items):,}, with what is in {partial.folder}")
    with _keeping(partial, len(items)), progress.bar(len(items), partial.rows) as step:
        if dtype == "int8" and not partial.rows:
            ranges = _calibrated(len(items), window, embed) if ranges is None else ranges
            with _writing(out):
                partial.write_ranges(ranges)
        elif dtype == "int8" and partial.rows < len(items):
            ranges = np.load(partial.ranges)
        for start in range(partial.rows, len(items), window):
            rows = range(start, min(start + window, len(items)))
            vectors, cut = embed(rows)
            with _writing(out, _kept(partial)):
                partial.append(quantize(vectors, dtype, ranges), cut)
            step(len(rows))
        with _writing(out, _kept(partial)):
            partial.place()
    model.warn_of_cut(partial.cut, len(items), modality=items.modality, side=side)
    result = EncodingResult(
        file, len(items), kept, dtype, partial.cut, ranges_beside(file) if dtype == "int8" else None
    )
    progress.result(result)
    return result


def _embedder(
    model: EmbeddingModel, items: Column, side: Side | None, batch_size: int | None, width: int | None
) -> _Embed:
    def embed(rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, int]:
        vectors, cut = model.encode_and_count(
            items.take(rows), modality=items.modality, side=side, batch_size=batch_size, width=width
        )
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            row = int(rows[wrong[0]])
            raise DataError(f"The embedding of item {row} is not finite: {items.shown(row)}.\nMend or remove it.")
        return vectors, cut

    return embed


def _calibrated(rows: int, window: int, embed: _Embed) -> np.ndarray:
    """The ranges of items that are spread evenly over all."""
    size = min(rows, max(_LEAST, min(_MOST, rows // 20)))
    sample = np.arange(size) * rows // size
    return ranges_of(
        np.concatenate([ranges_of(embed(sample[start : start + window])[0]) for start in range(0, size, window)])
    )


def _kept(partial: Partial) -> str:
    """What a person has of a run that ends, and how to go on."""
    return f"\nThe first {partial.rows:,} rows are kept: the same command goes on there." if partial.rows else ""


@contextlib.contextmanager
def _writing(out: str | Path, more: str = "") -> Iterator[None]:
    """Within it, a disk that refuses is a word about the file."""
    try:
        yield
    except OSError as error:
        reason = str(error) if error.errno is None else os.strerror(error.errno)  # Arrow has words of its own for it
        raise FolderError(f"{out} cannot be written: {reason}.{more}") from None


@contextlib.contextmanager
def _keeping(partial: Partial, rows: int) -> Iterator[None]:
    """Within it, whatever ends the run leaves what was written, and nothing where that is nothing."""
    try:
        yield
    except BaseException as error:
        if not partial.rows:
            partial.remove()
        if isinstance(error, KeyboardInterrupt):
            how = ": the same command goes on there" if partial.rows else ", before any was kept"
            raise KeyboardInterrupt(f"Stopped at row {partial.rows:,} of {rows:,}{how}.") from None
        raise
