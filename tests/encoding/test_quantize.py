"""int8 and binary, against sentence-transformers, loops and bounds; and that they still rank as floats do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import finetuner
from finetuner_core.encoding.quantize import dequantize, ranges_of, read_ranges, stored_width
from finetuner_core.errors import OptionError


def vectors_of(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Vectors of length 1 around 20 centres, float32 (rows, width)."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, width))
    vectors = centres[random.integers(0, 20, rows)] + random.normal(size=(rows, width))
    normed: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normed


def overlap(some: np.ndarray, others: np.ndarray, k: int) -> float:
    """The share of the first k that two scorings (Q, N) have in common."""
    shared = [{*np.argsort(-a)[:k]} & {*np.argsort(-b)[:k]} for a, b in zip(some, others, strict=True)]
    return float(np.mean([len(each) / k for each in shared]))


def test_int8_by_a_loop() -> None:
    vectors, ranges = vectors_of(50, 5), ranges_of(vectors_of(40, 5, seed=1))
    found = finetuner.quantize(vectors, "int8", ranges)
    for row, vector in enumerate(vectors):
        for at, value in enumerate(vector):
            low, high = ranges[:, at]
            level = np.floor(np.float32(value - low) / np.float32((high - low) / 255))
            assert found[row, at] == min(max(level, 0), 255) - 128


@pytest.mark.parametrize("width", [8, 64, 13])
def test_as_sentence_transformers_does(width: int) -> None:
    util = pytest.importorskip("sentence_transformers.util")
    vectors, ranges = vectors_of(300, width), ranges_of(vectors_of(100, width, seed=1))
    vectors[:, 3] = ranges[:, 3] = 0.25  # a component that is always the same
    pairs = [
        (finetuner.quantize(vectors, "int8", ranges), util.quantize_embeddings(vectors, "int8", ranges=ranges)),
        (finetuner.quantize(vectors, "binary"), util.quantize_embeddings(vectors, "ubinary")),
    ]
    for own, other in pairs:
        assert own.dtype == other.dtype
        np.testing.assert_array_equal(own, other)
    assert pairs[1][0].shape == (300, stored_width(width, "binary"))


def test_values_saturate() -> None:
    ranges = np.array([[-1, 0], [1, 0]], np.float32)
    levels = finetuner.quantize(np.array([[-9, -9], [-1, 0], [1.01, 0], [9, 9]], np.float32), "int8", ranges)
    assert levels.tolist() == [[-128, -128], [-128, -128], [127, -128], [127, -119]]


def test_what_is_dequantised_is_within_half_a_step() -> None:
    vectors = vectors_of(500, 32)
    ranges = ranges_of(vectors)
    levels = finetuner.quantize(vectors, "int8", ranges)
    step = (ranges[1] - ranges[0]) / 255
    back = dequantize(levels, ranges)
    assert back.dtype == np.float32
    assert (abs(back - vectors) <= step * 0.501).all()
    np.testing.assert_array_equal(finetuner.quantize(back, "int8", ranges), levels)


def test_bits_by_a_loop() -> None:
    vectors = vectors_of(20, 13)
    vectors[0, 0] = 0
    found = finetuner.quantize(vectors, "binary")
    assert found.dtype == np.uint8
    for vector, packed in zip(vectors, found, strict=True):
        bits = "".join("1" if value > 0 else "0" for value in vector) + "000"
        assert packed.tolist() == [int(bits[:8], 2), int(bits[8:], 2)]


def test_floats() -> None:
    vectors = vectors_of(20, 13)
    assert finetuner.quantize(vectors, "float32") is vectors
    half = finetuner.quantize(vectors, "float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, vectors, rtol=2**-11, atol=2**-24)


def test_they_rank_as_floats_do() -> None:
    corpus, queries = vectors_of(2000, 256), vectors_of(50, 256, seed=1)
    scores = queries @ corpus.T
    ranges = ranges_of(corpus[::10])
    levels = dequantize(finetuner.quantize(corpus, "int8", ranges), ranges)
    asked = dequantize(finetuner.quantize(queries, "int8", ranges), ranges)
    bits, asked_bits = (np.unpackbits(finetuner.quantize(each, "binary"), axis=1) for each in (corpus, queries))
    hamming = (asked_bits[:, None] != bits[None]).mean(axis=2)
    by_int8 = asked @ levels.T
    assert np.corrcoef(by_int8.ravel(), scores.ravel())[0, 1] > 0.999
    assert overlap(by_int8, scores, 10) > 0.9
    # Of two vectors in no particular direction the share of signs that differ is their angle over 180 degrees
    # (Charikar 2002, https://doi.org/10.1145/509907.509965).
    angles = np.arccos(scores.clip(-1, 1)) / np.pi
    assert np.corrcoef(hamming.ravel(), angles.ravel())[0, 1] > 0.85
    assert abs(hamming - angles).mean() < 0.025
    assert overlap(-hamming, scores, 100) > 0.9  # as many as there are around each centre


def test_ranges_from_a_file(tmp_path: Path) -> None:
    vectors = vectors_of(30, 6)
    np.save(tmp_path / "r.npy", ranges_of(vectors).astype(np.float64))
    expected = finetuner.quantize(vectors, "int8", ranges_of(vectors))
    for file in (tmp_path / "r.npy", str(tmp_path / "r.npy")):
        np.testing.assert_array_equal(finetuner.quantize(vectors, "int8", file), expected)


@pytest.mark.parametrize(
    ("dtype", "ranges", "expected"),
    [
        ("int4", None, 'dtype is "int4"; it must be one of float32, float16, int8, binary.'),
        ("int8", None, "needs ranges: those that encode has left beside its file"),
        ("binary", np.zeros((2, 3)), 'ranges are what int8 is counted in; dtype is "binary".'),
        ("int8", np.zeros((2, 4)), r"ranges holds (2, 4); ranges of vectors of width 3 are numbers of shape (2, 3)"),
        ("int8", np.zeros((2, 3), complex), "ranges holds (2, 3)"),
        ("int8", np.array([[0, 1, 0], [0, 0, 0.0]]), "ranges has the range 1 to 0 at component 1; it must ascend."),
        ("int8", np.array([[0, 0, 0], [0, 1, np.nan]]), "the range 0 to nan at component 2"),
        ("int8", "gone.npy", "The ranges gone.npy cannot be read: No such file or directory."),
    ],
)
def test_says_what_is_wrong(dtype: str, ranges: np.ndarray | str | None, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        finetuner.quantize(np.zeros((1, 3), np.float32), dtype, ranges)  # type: ignore[arg-type]
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_file_that_holds_no_ranges(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.npy").write_bytes(content)
    with pytest.raises(OptionError, match=r"it is no \.npy file, or not a whole one"):
        read_ranges(tmp_path / "r.npy", 3)
    np.savez(tmp_path / "r.npz", a=np.zeros((2, 3)))
    with pytest.raises(OptionError, match="holds an archive"):
        read_ranges(tmp_path / "r.npz", 3)
