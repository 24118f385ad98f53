"""Chunks of like length, and the one way that they all go."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embed import Limit, chunks, embed_chunk, in_order

LENGTHS = st.lists(st.integers(1, 50), max_size=40)
LIMITS = st.builds(Limit, st.integers(1, 100), st.one_of(st.none(), st.integers(1, 10)))
OF_NUMBERS = SimpleNamespace(length=lambda number: number, collate=lambda numbers: {})


def cut(lengths: list[int], limit: Limit, *, padding_free: bool) -> list[list[int]]:
    encoder: Any = SimpleNamespace(padding_free=padding_free)
    return chunks(encoder, OF_NUMBERS, lengths, limit)


@given(LENGTHS, LIMITS, st.booleans())
def test_every_item_is_in_one_chunk_with_those_of_like_length(
    lengths: list[int], limit: Limit, padding_free: bool
) -> None:
    found = cut(lengths, limit, padding_free=padding_free)
    flat = [position for chunk in found for position in chunk]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[position] for position in flat] == sorted(lengths, reverse=True)
    for chunk in found:
        own = [lengths[position] for position in chunk]
        assert len(chunk) == 1 or (sum(own) if padding_free else len(own) * max(own)) <= limit.tokens
        assert limit.items is None or len(chunk) <= limit.items


@given(LENGTHS, LIMITS, st.booleans())
def test_no_chunk_could_take_the_next_item_too(lengths: list[int], limit: Limit, padding_free: bool) -> None:
    found = cut(lengths, limit, padding_free=padding_free)
    for chunk, after in itertools.pairwise(found):
        own = [lengths[position] for position in (*chunk, after[0])]
        tokens = sum(own) if padding_free else len(own) * max(own)
        assert tokens > limit.tokens or len(chunk) == limit.items


def test_images_count_for_the_patches_of_their_size() -> None:
    preprocess: Any = SimpleNamespace(image_size=(224, 224), length=lambda image: 1)
    encoder: Any = SimpleNamespace(padding_free=False)
    assert [len(chunk) for chunk in chunks(encoder, preprocess, [None] * 10, Limit(4 * 196))] == [4, 4, 2]


@given(LENGTHS.filter(len), LIMITS)
def test_vectors_come_back_in_the_order_of_their_items(lengths: list[int], limit: Limit) -> None:
    found = cut(lengths, limit, padding_free=False)
    vectors = [torch.tensor([[float(position)] for position in chunk]) for chunk in found]
    assert in_order(found, vectors).flatten().tolist() == list(range(len(lengths)))


@pytest.mark.usefixtures("acme")
def test_a_model_gives_the_same_in_one_chunk_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("letters")
    prepared = model.preprocess("text").prepare(["a", "a longer text than the first", "bc", "x" * 30, "a fifth"])
    whole = embed_chunk(model.encoder("text"), model.preprocess("text"), prepared, model.device)
    monkeypatch.setattr("finetuner_core.modeling.embedding_model.tokens_at_once", lambda device: 8)
    torch.testing.assert_close(model("text", prepared), whole)
    assert model("text", []).shape == (0, model.output_dim)
