"""How well pairs are found, against a loop over sorted neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.speed.quality import cosines, from_int8, retrieval


def by_loop(anchors: np.ndarray, positives: np.ndarray) -> tuple[float, float]:
    firsts, gains = [], []
    for row, anchor in enumerate(anchors):
        near = [float(anchor @ other / np.linalg.norm(anchor) / np.linalg.norm(other)) for other in positives]
        rank = sorted(range(len(near)), key=lambda other: -near[other]).index(row) + 1
        firsts.append(rank == 1)
        gains.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
    return float(np.mean(firsts)), float(np.mean(gains))


def test_it_counts_as_a_loop_does() -> None:
    draw = np.random.default_rng(0)
    anchors = draw.normal(size=(40, 5))
    positives = anchors * draw.uniform(0.5, 2, size=(40, 1)) + draw.normal(size=(40, 5))

    found = retrieval(anchors, positives)

    assert (found["recall@1"], found["ndcg@10"]) == pytest.approx(by_loop(anchors, positives))
    assert 0 < found["recall@1"] < found["ndcg@10"] < 1


def test_vectors_that_are_all_the_same_find_nothing() -> None:
    assert retrieval(np.ones((20, 3)), np.ones((20, 3))) == {"recall@1": 0.0, "ndcg@10": 0.0}


def test_cosines_are_of_directions_alone() -> None:
    vectors = np.array([[1.0, 0.0], [3.0, 3.0], [0.0, -2.0]], dtype=np.float32)
    reference = np.array([[5.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)

    assert cosines(vectors, reference) == pytest.approx([1.0, math.sqrt(0.5), -1.0])


def test_quantised_vectors_come_back_within_half_a_step() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 4)) * [1, 10, 100, 1000]
    low, step = vectors.min(axis=0), np.ptp(vectors, axis=0) / 255
    levels = np.clip(np.floor((vectors - low) / step), 0, 255) - 128

    assert np.abs(from_int8(levels.astype(np.int8), vectors) - vectors).max(axis=0) / step == pytest.approx(
        0.5, abs=0.02
    )
