"""Fewer bytes for each vector: half precision, a byte or a bit for each number.

int8 and binary are those of `sentence_transformers.util.quantize_embeddings` (its `int8` and `ubinary`), bit by bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from finetuner_core.errors import OptionError
from finetuner_core.values import quote

DType = Literal["float32", "float16", "int8", "binary"]

STORED: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.uint8,
}


def check_dtype(dtype: str, *, has_ranges: bool) -> None:
    """Whether there is a type of that name, and ranges go with it.

    Raises:
        OptionError: if there is none, or ranges are given where nothing is asked of them.
    """
    if dtype not in get_args(DType):
        raise OptionError(f"dtype is {quote(dtype)}; it must be one of {', '.join(get_args(DType))}.")
    if has_ranges and dtype != "int8":
        raise OptionError(f'ranges are what int8 is counted in; dtype is {quote(dtype)}.\nSay dtype="int8" as well.')


def stored_width(width: int, dtype: DType) -> int:
    """How many numbers of the file stand for a vector: 8 bits are one.

    >>> stored_width(384, "binary"), stored_width(384, "int8")
    (48, 384)
    """
    return -(-width // 8) if dtype == "binary" else width


def ranges_of(vectors: np.ndarray) -> np.ndarray:
    """The least and the greatest value of each component.

    Args:
        vectors: float32 (N, D), a sample of what is to be quantised.

    Returns:
        float32 (2, D).
    """
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def quantize(vectors: np.ndarray, dtype: DType, ranges: np.ndarray | str | Path | None = None) -> np.ndarray:
    """Vectors in fewer bytes.

    `float16`: the nearest number of half precision. `int8`: the range of each component is cut into 255 steps,
    `step = (ranges[1] - ranges[0]) / 255`, and a value is counted in them, `floor((x - ranges[0]) / step) - 128`; what
    lies outside saturates at -128 and 127. `binary`: a bit for each component, 1 where it is greater than 0, eight to a
    byte with the first in the highest place (`numpy.packbits`); the last byte is filled up with zeros.

    Args:
        vectors: float32 (N, D).
        dtype: what to make of them; `float32` leaves them as they are.
        ranges: for `int8` the ranges, float32 (2, D), or the file in which `encode` has left them, so that what asks is
            quantised as what is found was.

    Returns:
        (N, D) of that type; for `binary` uint8 (N, D / 8).

    Raises:
        OptionError: if there is no such type, or the ranges are missing or do not fit.
    """
    check_dtype(dtype, has_ranges=ranges is not None)
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=-1)
    if dtype != "int8":
        fewer: np.ndarray = vectors.astype(STORED[dtype], copy=False)
        return fewer
    if ranges is None:
        raise OptionError('dtype="int8" needs ranges: those that encode has left beside its file, NAME.ranges.npy.')
    ranges = read_ranges(ranges, vectors.shape[-1])
    levels = np.floor((vectors - ranges[0]) / _steps(ranges))
    counted: np.ndarray = (np.clip(levels, 0, 255) - 128).astype(np.int8)
    return counted


def dequantize(levels: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """What an int8 vector stands for: the middle of each step, `ranges[0] + (q + 128.5) * step`.

    Args:
        levels: int8 (N, D).
        ranges: float32 (2, D).

    Returns:
        float32 (N, D), within half a step of what was quantised where it did not saturate.
    """
    values: np.ndarray = ranges[0] + (levels.astype(np.float32) + np.float32(128.5)) * _steps(ranges)
    return values


def read_ranges(ranges: np.ndarray | str | Path, width: int) -> np.ndarray:
    """Ranges, checked.

    Args:
        ranges: an array, or the `.npy` file of one.
        width: how wide the vectors are.

    Returns:
        float32 (2, width).

    Raises:
        OptionError: if there is no such file, or it holds no ranges for vectors that wide.
    """
    name = "ranges" if isinstance(ranges, np.ndarray) else str(ranges)
    if not isinstance(ranges, np.ndarray):
        try:
            ranges = np.load(Path(ranges).expanduser(), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "it is no .npy file, or not a whole one"
            raise OptionError(f"The ranges {name} cannot be read: {reason}.") from None
    if not isinstance(ranges, np.ndarray) or ranges.dtype.kind not in "fiu" or ranges.shape != (2, width):
        shape = getattr(ranges, "shape", "an archive")
        raise OptionError(
            f"{name} holds {shape}; ranges of vectors of width {width} are numbers of shape (2, {width}):\n"
            "the least and the greatest value of each component."
        )
    wrong = np.flatnonzero(~(np.isfinite(ranges).all(axis=0) & (ranges[0] <= ranges[1])))
    if len(wrong):
        low, high = ranges[:, wrong[0]].tolist()
        raise OptionError(f"{name} has the range {low:g} to {high:g} at component {wrong[0]}; it must ascend.")
    return ranges.astype(np.float32)


def _steps(ranges: np.ndarray) -> np.ndarray:
    steps = (ranges[1] - ranges[0]) / 255
    return np.where(steps == 0, 1, steps)  # a component that is always the same
