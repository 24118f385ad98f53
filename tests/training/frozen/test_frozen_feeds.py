"""Training from the cache is the training that there would be without it, and computes nothing twice."""

from __future__ import annotations

import copy
import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.errors import DataError
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.training.feed import ColumnFeed, feeds_of
from finetuner_core.training.freezing import batch_statistics, freeze
from finetuner_core.training.frozen import fill as fill_module
from finetuner_core.training.frozen import store as store_module
from finetuner_core.training.frozen.boundary import PooledBoundary, StageBoundary, TokenBoundary
from finetuner_core.training.frozen.feeds import Cached, CachedFeed, cached_feeds
from finetuner_core.training.frozen.fill import first_rows, item_of_row
from finetuner_core.training.loop import Plan, train
from finetuner_core.training.objective import Objective

pytestmark = pytest.mark.usefixtures("acme")

WORDS = ["apple", "pear", "fig", "kiwi", "banana", "plum", "cherry", "lemon", "orange", "lime", "grape", "melon"]
TEXTS = Dataset(
    (
        Column("anchor", "text", [f"what is {word}" for word in WORDS]),
        Column("positive", "text", [f"{word} is a fruit{' indeed' * number}" for number, word in enumerate(WORDS)]),
    )
)


def images(count: int = 12, seed: int = 0) -> Dataset:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    return Dataset((Column("image", "image", [Image.fromarray(own) for own in pixels]),), list("abc") * (count // 3))


def vectors() -> Dataset:
    return Dataset((Column("vector", "vector", np.random.default_rng(0).normal(size=(12, 5))),), list("abc") * 4)


DATA = {"letters": TEXTS, "pixels": images(), "numbers": vectors()}


class Prepared(NamedTuple):
    """A model that is frozen, and how its data are read."""

    model: EmbeddingModel
    frozen: list[nn.Module]
    feeds: list[Any]
    data: Dataset

    def cached(self, folder: Path, **settings: Any) -> Cached:
        return cached_feeds(
            self.model, self.data, self.feeds, self.frozen, folder=folder, **{"dtype": torch.float32} | settings
        )


def prepared(
    name: str, what: str | int | None, data: Dataset | None = None, mirror: bool | None = None, **options: Any
) -> Prepared:
    data = data or DATA[name]
    torch.manual_seed(3)
    given = {"input_size": 5} if name == "numbers" else {}
    model = build_model(name, **{"output_dim": 4} | given | options)
    use_fast_dropout(model)  # which puts other modules into the place of those that are frozen
    frozen = [*freeze(model, what), *batch_statistics(model)]
    return Prepared(model, frozen, feeds_of(model, data, mirror), data)


def kind(cached: Cached) -> type:
    (feed, *_) = cached.feeds
    return type(feed._boundary) if isinstance(feed, CachedFeed) else type(feed)


def trained(own: Prepared, feeds: list[Any], dtype: torch.dtype = torch.float32) -> tuple[list[float], list[Tensor]]:
    """The loss of each step, and the weights that training ends with."""
    plan = Plan(
        epochs=3, learning_rate=0.05, weight_decay=0.1, warmup=0, schedule="linear", max_grad_norm=1.0, dtype=dtype,
        mirror=None, seed=0,
    )  # fmt: skip
    batches = PairBatches(own.data, 6, 0) if own.data.labels is None else ClassBatches(own.data, 6, 2, 0)
    losses: list[float] = []
    train(
        own.model,
        [Objective(own.data, InfoNCELoss(), batches)],
        plan,
        feeds=[feeds],
        frozen=own.frozen,
        on_step=lambda loss, items: losses.append(loss),
    )
    return losses, [parameter.detach().clone() for parameter in own.model.parameters()]


CASES: list[tuple[str, str | int, str, type]] = [
    ("letters", "backbone", "mean", PooledBoundary),
    ("letters", "backbone", "attention", TokenBoundary),
    ("letters", "backbone", "gem", TokenBoundary),
    ("letters", 1, "mean", StageBoundary),
    ("letters", 1, "attention", StageBoundary),
    ("pixels", "backbone", "native", PooledBoundary),
    ("pixels", "backbone", "max", PooledBoundary),
    ("pixels", "backbone", "attention", TokenBoundary),
    ("pixels", 1, "native", StageBoundary),
    ("pixels", 1, "gem", StageBoundary),
    ("numbers", "backbone", "native", PooledBoundary),
]


@pytest.mark.parametrize(("name", "what", "pooling", "expected"), CASES)
def test_losses_and_weights_are_those_without_a_cache(
    name: str, what: str | int, pooling: str, expected: type, tmp_path: Path
) -> None:
    own = prepared(name, what, pooling=pooling)
    other = copy.deepcopy(own.model)
    cached = own.cached(tmp_path)
    assert kind(cached) is expected
    live = prepared(name, what, pooling=pooling)
    assert all(torch.equal(*pair) for pair in zip(other.parameters(), live.model.parameters(), strict=True))
    losses, weights = trained(own, cached.feeds)
    live_losses, live_weights = trained(live, live.feeds)
    assert losses == pytest.approx(live_losses, rel=1e-5)
    for found, wanted in zip(weights, live_weights, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    moved = [not torch.equal(*pair) for pair in zip(other.parameters(), weights, strict=True)]
    assert moved == [parameter.requires_grad for parameter in own.model.parameters()]


def test_dropout_behind_the_boundary_draws_what_it_would_and_before_it_nothing(tmp_path: Path) -> None:
    own = prepared("letters", 1, dropout=0.5, pooling="mean")
    live = prepared("letters", 1, dropout=0.5, pooling="mean")
    losses, _ = trained(own, own.cached(tmp_path).feeds)
    live_losses, _ = trained(live, live.feeds)
    assert losses == pytest.approx(live_losses, rel=1e-5)


def test_in_bfloat16_what_is_kept_is_bit_by_bit_what_training_would_see(tmp_path: Path) -> None:
    for name, what, pooling in (("pixels", "backbone", "native"), ("letters", 1, "mean")):
        own, live = prepared(name, what, pooling=pooling), prepared(name, what, pooling=pooling)
        cached = own.cached(tmp_path, dtype=torch.bfloat16)
        losses, _ = trained(own, cached.feeds, torch.bfloat16)
        live_losses, _ = trained(live, live.feeds, torch.bfloat16)
        assert losses == pytest.approx(live_losses, rel=1e-3)
    (part,) = prepared("pixels", "backbone").cached(tmp_path, dtype=torch.bfloat16).feeds[0]._boundary.layout.parts  # type: ignore[attr-defined]
    assert part.dtype is torch.bfloat16


def test_columns_of_one_encoder_share_the_encoder_that_goes_on(tmp_path: Path) -> None:
    own = prepared("letters", "backbone")
    first, second = own.cached(tmp_path).feeds
    assert first.encoder is second.encoder is not own.feeds[0].encoder
    assert first.encoder.projection is own.feeds[0].encoder.projection


def test_only_the_tower_that_is_frozen_is_cached(tmp_path: Path) -> None:
    picture = images().columns[0]
    data = Dataset((replace(TEXTS.columns[0], name="text"), picture))
    own = prepared("both", "image", data)
    cached = own.cached(tmp_path)
    assert [type(feed) for feed in cached.feeds] == [ColumnFeed, CachedFeed]
    assert cached.feeds[0] is own.feeds[0]
    live = prepared("both", "image", data)
    losses, live_losses = trained(own, cached.feeds)[0], trained(live, live.feeds)[0]
    assert losses == pytest.approx(live_losses, rel=1e-5)


@pytest.mark.parametrize("what", [None, 1])
def test_nothing_is_cached_where_nothing_is_frozen_or_not_from_the_input_on(what: int | None, tmp_path: Path) -> None:
    own = prepared("letters", what)
    if what:
        own.feeds[0].encoder.extractor.get_submodule("network.letters_in").requires_grad_(True)
    cached = own.cached(tmp_path / "cache")
    assert cached.feeds == own.feeds
    assert cached.said == []
    assert not (tmp_path / "cache").exists()


def test_a_stage_that_drops_out_in_training_is_not_frozen(tmp_path: Path) -> None:
    own = prepared("letters", 1, dropout=0.5)
    assert own._replace(frozen=[]).cached(tmp_path).feeds == own.feeds


# What is computed again, and what is not.


def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many items a boundary has computed records, each time."""
    counts: list[int] = []
    for boundary in (PooledBoundary, TokenBoundary, StageBoundary):

        def compute(self: Any, batch: Any, lengths: Any, real: Callable[..., Any] = boundary.compute) -> Any:
            counts.append(len(lengths))
            return real(self, batch, lengths)

        monkeypatch.setattr(boundary, "compute", compute)
    return counts


def computed(cached: Cached) -> int:
    """What is said to be computed."""
    (said,) = cached.said
    return int(said.split(": ")[1].split(" computed")[0].replace(",", ""))


def test_equal_items_are_computed_once_and_a_kept_cache_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = forwards(monkeypatch)
    texts = ["a", "b", "a", "c"]
    data = Dataset((Column("anchor", "text", texts), Column("positive", "text", ["b", "b", "d", "a"])))
    cached = prepared("letters", "backbone", data).cached(tmp_path)
    assert computed(cached) == 4
    assert sum(counts) == 4 + 1  # one tells how large records are
    again = prepared("letters", "backbone", data).cached(tmp_path)
    assert computed(again) == 0
    assert again.said == ["pooled vectors of texts: 0 computed, 0 bytes; 6 were there already"]
    assert sum(counts) == 4 + 1 + 1


def test_copies_of_a_picture_in_memory_are_one_item_in_the_cache(tmp_path: Path) -> None:
    (column,), labels = images(6).columns, list("abcabc")
    twice = [picture.copy() for picture in column.take(range(6)) for _ in range(2)]  # type: ignore[attr-defined]
    data = Dataset((Column("image", "image", twice),), [label for label in labels for _ in range(2)])
    assert computed(prepared("pixels", "backbone", data).cached(tmp_path)) == 6


def test_a_changed_item_is_computed_and_no_other(tmp_path: Path) -> None:
    prepared("letters", "backbone").cached(tmp_path)
    anchors, positives = TEXTS.columns
    texts = ["new", *anchors.take(range(11))]
    data = Dataset((replace(anchors, items=texts), positives))
    assert computed(prepared("letters", "backbone", data).cached(tmp_path)) == 1


@pytest.mark.parametrize(
    ("what", "pooling", "change", "expected"),
    [
        ("backbone", "mean", "letters_in.weight", 24),
        ("backbone", "mean", "letters_out.bias", 24),
        ("backbone", "attention", "letters_out.bias", 24),
        (1, "mean", "letters_in.weight", 24),
        (1, "mean", "letters_out.bias", 0),
    ],
)
def test_a_changed_weight_invalidates_what_follows_from_it(
    what: str | int, pooling: str, change: str, expected: int, tmp_path: Path
) -> None:
    prepared("letters", what, pooling=pooling).cached(tmp_path)
    own = prepared("letters", what, pooling=pooling)
    with torch.no_grad():
        own.model.encoder("text").extractor.get_parameter(f"network.{change}").view(-1)[3] += 1e-6
    assert computed(own.cached(tmp_path)) == expected


def test_a_buffer_counts_as_a_weight_and_the_projection_does_not(tmp_path: Path) -> None:
    assert computed(prepared("pixels", "backbone").cached(tmp_path)) == 12
    own = prepared("pixels", "backbone")
    projection = own.model.encoder("image").projection
    assert projection is not None
    nn.init.zeros_(projection.weight)
    assert computed(own.cached(tmp_path)) == 0
    own.model.encoder("image").extractor.get_buffer("network.pixels_norm.running_mean").add_(1e-6)
    assert computed(own.cached(tmp_path)) == 12


def test_the_pooling_counts_where_it_is_cached_and_not_where_it_comes_later(tmp_path: Path) -> None:
    assert computed(prepared("letters", "backbone", pooling="mean").cached(tmp_path)) == 24
    assert computed(prepared("letters", "backbone", pooling="max").cached(tmp_path)) == 24
    assert computed(prepared("letters", "backbone", pooling="attention").cached(tmp_path)) == 24
    assert computed(prepared("letters", "backbone", pooling="gem").cached(tmp_path)) == 0
    assert computed(prepared("letters", 1, pooling="mean").cached(tmp_path)) == 24
    assert computed(prepared("letters", 1, pooling="max").cached(tmp_path)) == 0


def test_precision_and_depth_count(tmp_path: Path) -> None:
    own = prepared("pixels", "backbone")
    assert computed(own.cached(tmp_path)) == 12
    assert computed(own.cached(tmp_path, dtype=torch.bfloat16)) == 12
    assert computed(prepared("pixels", 1).cached(tmp_path)) == 12
    assert computed(own.cached(tmp_path)) == 0


def test_preprocessing_counts(tmp_path: Path) -> None:
    own = prepared("pixels", "backbone")
    own.cached(tmp_path)
    (feed,) = own.feeds
    for name, value in (("_mean", torch.full((3, 1, 1), 0.4)), ("_resize", _smaller)):
        changed = copy.copy(feed.preprocess)
        assert isinstance(changed, PixelPreprocess)
        setattr(changed, name, value)
        other = own._replace(feeds=[ColumnFeed(feed.column, changed, feed.encoder, None)])
        assert computed(other.cached(tmp_path)) == 12
    assert computed(own.cached(tmp_path)) == 0


def _smaller(image: Image.Image) -> Image.Image:
    return image.resize((17, 17))


def test_another_version_computes_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = prepared("pixels", "backbone")
    own.cached(tmp_path)
    monkeypatch.setattr(store_module, "VERSION", 2)
    with caplog.at_level(logging.WARNING, "finetuner"):
        assert computed(own.cached(tmp_path)) == 12
    assert "written in format 1, and this version reads format 2" in caplog.text


# Views.


def test_of_varied_images_there_are_views_which_are_drawn_as_training_goes(tmp_path: Path) -> None:
    own = prepared("pixels", "backbone", mirror=True)
    cached = own.cached(tmp_path, views=3)
    (feed,) = cached.feeds
    assert computed(cached) == 36
    generator = torch.Generator().manual_seed(0)
    rows = [4] * 60
    drawn = [record.tobytes() for record in feed.prepare(rows, generator)]
    assert sorted(map(drawn.count, {*drawn})) == sorted(
        torch.randint(3, (60,), generator=torch.Generator().manual_seed(0)).bincount().tolist()
    )
    # Each of them is what the network makes of a crop, and none is what it makes of the whole image.
    whole = prepared("pixels", "backbone").cached(tmp_path).feeds[0].prepare([4], generator)[0]
    assert whole.tobytes() not in drawn
    assert len({*drawn}) == 3


def test_views_follow_from_seed_and_image_wherever_it_stands(tmp_path: Path) -> None:
    data = images()
    own = prepared("pixels", "backbone", data, mirror=False)
    assert computed(own.cached(tmp_path, views=2)) == 24
    turned = data.select([5, 4, 3, 2, 1, 0])
    assert computed(prepared("pixels", "backbone", turned, mirror=False).cached(tmp_path, views=2)) == 0
    assert computed(own.cached(tmp_path, views=3)) == 12
    assert computed(own.cached(tmp_path, views=2, seed=1)) == 24
    assert computed(prepared("pixels", "backbone", data, mirror=True).cached(tmp_path, views=2)) > 0


def test_texts_have_no_views(tmp_path: Path) -> None:
    assert computed(prepared("letters", "backbone", mirror=True).cached(tmp_path, views=3)) == 24


def test_training_sees_the_views_of_a_step_whoever_prepares_them(tmp_path: Path) -> None:
    losses = []
    for place in ("first", "second"):
        own = prepared("pixels", 1, mirror=True)
        losses.append(trained(own, own.cached(tmp_path / place, views=2).feeds)[0])
    assert losses[0] == losses[1]


# What can go wrong.


def test_on_a_full_disk_training_goes_on_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    own = prepared("letters", "backbone")
    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "finetuner"):
        cached = own.cached(tmp_path)
    assert cached.feeds == own.feeds
    assert len(caplog.messages) == 1
    (said,) = cached.said
    assert "what letters makes of texts is not cached: the disk of" in said
    assert said.endswith("is full")
    monkeypatch.undo()
    assert computed(own.cached(tmp_path)) == 24


def test_what_has_no_room_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = prepared("pixels", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 300_000))
    cached = own.cached(tmp_path / "new")
    assert cached.feeds == own.feeds
    # 12 images of 6 channels and 7 x 7 pixels.
    assert cached.said == [
        f"what pixels makes of images is not cached: it would take 14 kB, and the disk of {tmp_path} has 300 kB free"
    ]
    assert not (tmp_path / "new").exists()


def test_what_is_not_read_again_is_not_cached(tmp_path: Path) -> None:
    said = "what pixels makes of images is not cached: to compute {} once costs as much as training in {} epochs does"
    own = prepared("pixels", "backbone")
    assert own.cached(tmp_path, epochs=1).said == [said.format("each item", 1)]
    varied = prepared("pixels", "backbone", mirror=True)
    assert varied.cached(tmp_path, epochs=4).said == [said.format("4 views of each item", 4)]
    assert kind(varied.cached(tmp_path, epochs=5)) is PooledBoundary


def test_a_network_that_cannot_be_cut_is_trained_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = prepared("pixels", 1)
    extractor = own.model.encoder("image").extractor
    real = extractor.forward

    def again(batch: Any) -> Any:
        features = real(batch)
        return replace(features, tokens=features.tokens + batch["pixels"].mean())

    monkeypatch.setattr(extractor, "forward", again)
    cached = own.cached(tmp_path)
    assert cached.feeds == own.feeds
    assert cached.said == ["what pixels makes of images is not cached: what is trained reads the network's input again"]


def test_an_item_that_cannot_be_read_ends_the_run_and_leaves_the_modes(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    data = images(60)
    (column,) = data.columns
    items = [*column.take(range(60))]
    own = prepared("pixels", 1, replace(data, columns=(replace(column, items=[*items[:3], broken, *items[4:]]),)))
    own.model.train()
    with pytest.raises(DataError, match=r"broken\.png"):
        own.cached(tmp_path / "cache")
    assert all(module.training for module in own.model.modules())


def test_progress_counts_different_items(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    data = Dataset((Column("anchor", "text", list("aab")), Column("positive", "text", list("cdd"))))
    prepared("letters", "backbone", data).cached(tmp_path, on_progress=lambda *done: told.append(done))
    assert told == [(2, 4), (4, 4)]


def test_what_is_computed_in_several_windows_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TEXTS", "_IMAGES"):
        monkeypatch.setattr(fill_module, name, 5)
    for name in ("letters", "pixels"):
        own = prepared(name, "backbone")
        cached = own.cached(tmp_path)
        rows, generator = list(range(12)), torch.Generator()
        for live, feed in zip(own.feeds, cached.feeds, strict=True):
            expected = live.encoder(live.collate(live.prepare(rows, generator)))
            torch.testing.assert_close(feed.encoder(feed.collate(feed.prepare(rows, generator))), expected)


def test_rows_are_numbered_by_their_first_appearance() -> None:
    identities = np.array([7, 3, 7, 9, 3])
    assert first_rows(identities).tolist() == [0, 1, 3]
    assert item_of_row(identities).tolist() == [0, 1, 0, 2, 1]


def test_lengths_are_those_of_the_real_items(tmp_path: Path) -> None:
    generator = torch.Generator()
    for what, pooling in ((1, "mean"), ("backbone", "attention")):
        own = prepared("letters", what, pooling=pooling)
        for live, feed in zip(own.feeds, own.cached(tmp_path).feeds, strict=True):
            lengths = [[each.length(item) for item in each.prepare(range(12), generator)] for each in (live, feed)]
            assert lengths[0] == lengths[1]
    pooled = prepared("letters", "backbone", pooling="mean").cached(tmp_path).feeds[0]
    assert pooled.length(pooled.prepare([0], generator)[0]) == 1
    # Images that a network is still to see are as large as they were, and vectors are not.
    assert prepared("pixels", 1).cached(tmp_path).feeds[0].image_size == (16, 16)  # type: ignore[attr-defined]
    assert not hasattr(prepared("pixels", "backbone").cached(tmp_path).feeds[0], "image_size")


def test_the_real_encoder_is_as_before(tmp_path: Path) -> None:
    own = prepared("pixels", 1)
    (before,) = [own.model.encode(own.data.columns[0].items)]
    (feed,) = own.cached(tmp_path).feeds
    assert isinstance(feed.encoder, Encoder)
    feed.encoder(feed.collate(feed.prepare([0, 1], torch.Generator())))
    assert np.array_equal(own.model.encode(own.data.columns[0].items), before)
