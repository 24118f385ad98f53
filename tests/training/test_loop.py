"""The training loop: what a step computes is the loss of the whole batch, and all of it follows from the seed."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from finetuner_core.data.batches import ClassBatches, PairBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import TrainingError
from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.feed import feeds_of
from finetuner_core.training.loop import Plan, train
from finetuner_core.training.objective import Objective
from finetuner_core.training.state import Epoch
from finetuner_core.training.step import Step

pytestmark = pytest.mark.usefixtures("acme")

PLAN = Plan(
    epochs=1,
    learning_rate=0.01,
    weight_decay=0,
    warmup=0,
    schedule="linear",
    max_grad_norm=0,
    dtype=torch.float32,
    mirror=None,
    seed=0,
)
# Texts of unlike lengths, so that a batch holds padding. The first and the third pair share their anchor.
ANCHORS = ["apple", "a long question about pears", "apple", "fig", "kiwi"]
POSITIVES = ["red", "green, and a little yellow", "round", "x", "brown and green"]
PAIRS = Dataset((Column("anchor", "text", ANCHORS), Column("positive", "text", POSITIVES)))
GROUPS = [0, 1, 0, 3, 4]


def pairs(loss: nn.Module, batch_size: int = 5) -> Objective:
    return Objective(PAIRS, loss, PairBatches(PAIRS, batch_size, 0))


def labelled_images(count: int = 12) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    return Dataset(
        (Column("image", "image", [Image.fromarray(image) for image in pixels]),), list("abc") * (count // 3)
    )


def embed_one(model: EmbeddingModel, text: str) -> Tensor:
    vector: Tensor = model("text", model.preprocess("text").prepare([text]))
    return vector[0]


def naive_infonce(model: EmbeddingModel, t: float) -> Tensor:
    """The loss of all pairs in one batch, each text embedded alone."""
    anchors, positives = ([embed_one(model, text) for text in texts] for texts in (ANCHORS, POSITIVES))
    terms = []
    for i, anchor in enumerate(anchors):
        scores = [torch.exp((anchor * positive).sum() / t) for positive in positives]
        wrong = sum(score for j, score in enumerate(scores) if GROUPS[i] != GROUPS[j])
        terms.append(-torch.log(scores[i] / (scores[i] + wrong)))
    return torch.stack(terms).mean()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_steps_loss_and_gradients_are_those_of_the_whole_batch() -> None:
    model = build_model("letters", output_dim=6)
    twin = copy.deepcopy(model)
    # Negatives among equal anchors, or a pair that lost its partner, would show in both.
    (epoch,) = train(model, [pairs(InfoNCELoss(temperature=0.5))], PLAN)
    expected = naive_infonce(twin, 0.5)
    expected.backward()  # type: ignore[no-untyped-call]
    assert epoch["loss"] == pytest.approx(expected.item(), rel=1e-5)
    found, wanted = gradients(model), gradients(twin)
    assert found.keys() == wanted.keys() != set()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_labelled_items_reach_the_loss_with_their_labels() -> None:
    seen: list[list[int]] = []

    class Watching(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: None = None, ref_labels: None = None) -> Tensor:
            assert embeddings.shape == (len(labels), 12)
            seen.append(labels.tolist())
            return embeddings.sum()

    data = labelled_images()
    train(build_model("pixels"), [Objective(data, Watching(), ClassBatches(data, 6, 2, 0))], replace(PLAN, epochs=2))
    assert [sorted(labels) for labels in seen] == [[0, 0, 1, 1, 2, 2]] * 4


def test_a_loss_of_pytorch_metric_learning_takes_pairs_as_it_is() -> None:
    from pytorch_metric_learning.losses import NTXentLoss

    class Grouped(InfoNCELoss):
        """As those of that library, told nothing but labels."""

        def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(embeddings, labels, ref_emb, ref_labels)

    epochs = [
        train(build_model("letters"), [pairs(loss)], replace(PLAN, epochs=2))
        for loss in (NTXentLoss(temperature=0.5), Grouped(temperature=0.5))
    ]
    theirs, own = ([epoch["loss"] for epoch in history] for history in epochs)
    assert theirs == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("name", ["letters", "both"])
def test_columns_come_apart_as_they_went_in(name: str) -> None:
    model = build_model(name)
    data, pictures = PAIRS, labelled_images(6).columns[0]
    if name == "both":
        data = Dataset((PAIRS.columns[0], replace(pictures, items=pictures.take(range(5)))))
    rows = [4, 0, 3]
    seen: list[Tensor] = []

    class Watch(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:
            seen.extend((embeddings.detach(), ref_emb.detach()))
            return embeddings.sum()

    objective = Objective(data, Watch(), PairBatches(data, 3, 0))
    feeds = feeds_of(model, data, None)
    step = Step(list(model.parameters()), model.device, torch.float32)
    step.backward(objective, feeds, [feed.prepare(rows, torch.Generator()) for feed in feeds], rows)
    for column, vectors in zip(data.columns, seen, strict=True):
        alone = model(column.modality, model.preprocess(column.modality).prepare(column.take(rows)))
        torch.testing.assert_close(vectors, alone)


def random_data(name: str) -> tuple[Dataset, Callable[[int], ClassBatches | PairBatches], nn.Module]:
    if name == "pixels":
        data = labelled_images()
        return data, lambda seed: ClassBatches(data, 6, 2, seed), ContrastiveLoss(margin=2)
    return PAIRS, lambda seed: PairBatches(PAIRS, 2, seed), InfoNCELoss(learnable=True)


@pytest.mark.parametrize("name", ["letters", "pixels"])
def test_everything_follows_from_the_seed(name: str) -> None:
    elsewhere = itertools.count()

    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(next(elsewhere))
        # Dropout and the crops are random as well.
        options: dict[str, Any] = {"dropout": 0.3} if name == "letters" else {}
        model = build_model(name, **options)
        data, batches, loss = random_data(name)
        plan = replace(PLAN, epochs=2, seed=seed, mirror=True)
        train(model, [Objective(data, loss, batches(seed))], plan)
        return [*model.state_dict().values(), *loss.state_dict().values()]

    first, second, other, large = weights(1), weights(1), weights(2), weights(2**64 - 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, large, strict=True))


def test_the_seed_alone_changes_the_crops() -> None:
    model, data = build_model("pixels"), labelled_images()

    def embed(mirror: bool | None, seed: int) -> Tensor:
        (feed,) = feeds_of(model, data, mirror)
        vectors: Tensor = model("image", feed.prepare([0, 1], torch.Generator().manual_seed(seed)))
        return vectors

    assert torch.equal(embed(True, 1), embed(True, 1))
    assert not torch.equal(embed(True, 1), embed(True, 2))
    assert torch.equal(embed(None, 1), embed(None, 2))


@pytest.mark.parametrize("bound", [0.0, 1e-3, 1e6])
def test_gradients_are_shortened_to_the_bound_and_keep_their_direction(bound: float) -> None:
    def run(max_grad_norm: float) -> Tensor:
        model = build_model("letters")
        plan = replace(PLAN, max_grad_norm=max_grad_norm)
        train(model, [pairs(InfoNCELoss())], plan)
        return torch.cat([gradient.flatten() for gradient in gradients(model).values()])

    free, kept = run(0), run(bound)
    expected = free * bound / free.norm() if 0 < bound < free.norm() else free
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_before_its_step(bad: float) -> None:
    class Breaks(nn.Module):
        calls = 0

        def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:
            self.calls += 1
            return embeddings.sum() * (bad if self.calls == 5 else 1)

    model, reported = build_model("letters"), list[Any]()
    with pytest.raises(TrainingError) as caught:
        train(
            model,
            [pairs(Breaks(), 2)],
            replace(PLAN, epochs=3),
            on_step=lambda loss, items: reported.append(loss),
        )
    message = str(caught.value)
    assert "in step 2 of epoch 2, on the rows " in message
    assert (
        "\nTry a lower learning rate than 0.01, precision float32, or leave such steps out: --skip-bad-steps" in message
    )
    assert len(reported) == 4
    assert all(parameter.isfinite().all() for parameter in model.parameters())


class Explodes(nn.Module):
    """A loss that is finite, with a gradient that is not, in one of its steps; it counts in a buffer."""

    calls: Tensor

    def __init__(self, step: int, *, loss_too: bool) -> None:
        super().__init__()
        self.step, self.loss_too = step, loss_too
        self.at = 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:
        self.at += 1
        self.calls = self.calls + 1
        value = (embeddings * ref_emb).sum()
        if self.at != self.step:
            return value
        return value * math.inf if self.loss_too else (value - value.detach()).abs().sqrt()


@pytest.mark.parametrize("loss_too", [True, False])
def test_a_bad_step_is_left_out_where_that_is_asked_for(loss_too: bool, caplog: pytest.LogCaptureFixture) -> None:
    plan = replace(PLAN, skip_bad_steps=True, schedule="linear")
    model, loss = build_model("letters"), Explodes(2, loss_too=loss_too)
    (epoch,) = train(model, [pairs(loss, 2)], plan)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert "in step 2 of epoch 1, on the rows " in caplog.text
    assert "it is left out" in caplog.text
    assert math.isfinite(epoch["loss"])
    # What the loss learnt in that step is forgotten as well: of three steps it knows two.
    assert loss.calls == 2


def test_an_infinite_gradient_of_a_finite_loss_ends_the_training_too() -> None:
    model = build_model("letters")
    with pytest.raises(TrainingError, match=r"The gradient became infinite or NaN in step 2 of epoch 1"):
        train(model, [pairs(Explodes(2, loss_too=False), 2)], PLAN)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_what_is_measured_in_the_middle_is_not_counted_as_training() -> None:
    def is_done(step: int, steps: int) -> bool:
        time.sleep(0.5)
        return False

    (epoch,) = train(build_model("letters"), [pairs(InfoNCELoss(), 2)], PLAN, is_done=is_done)
    assert epoch["seconds"] < 1.5


def test_the_history_has_an_entry_for_each_epoch() -> None:
    steps: list[tuple[float, int]] = []
    told: list[Epoch] = []
    plan = replace(PLAN, epochs=2, schedule="linear", learning_rate=0.04)
    model = build_model("letters")
    history = train(
        model,
        [pairs(InfoNCELoss(), 2)],
        plan,
        on_step=lambda loss, items: steps.append((loss, items)),
        on_epoch=told.append,
    )
    assert told == history
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert [items for _, items in steps] == [2, 1, 2, 2, 1, 2]
    for number, epoch in enumerate(history):
        own = steps[3 * number : 3 * number + 3]
        assert epoch["loss"] == pytest.approx(sum(loss * items for loss, items in own) / 5)
        assert epoch["items_per_second"] == pytest.approx(5 / epoch["seconds"])
    # Of six steps in which the rate falls in a line to nothing, these are the third and the last.
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([0.04 * 4 / 6, 0.04 * 1 / 6])
    assert not model.training


def test_bfloat16_is_what_is_computed_in_and_not_what_is_kept() -> None:
    inside: list[torch.dtype] = []
    model = build_model("letters")
    layer = model.encoder("text").extractor.get_submodule("network.letters_out")
    layer.register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
    plan = replace(PLAN, dtype=torch.bfloat16)
    (epoch,) = train(model, [pairs(InfoNCELoss())], plan)
    assert set(inside) == {torch.bfloat16}
    assert math.isfinite(epoch["loss"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    train(model, [pairs(InfoNCELoss())], PLAN)
    assert inside[-1] is torch.float32


def test_what_no_gradient_reaches_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("letters")
    model.encoder("text").register_parameter("idle", nn.Parameter(torch.zeros(2)))
    train(model, [pairs(InfoNCELoss(), 3)], replace(PLAN, epochs=2))
    assert caplog.messages == ["1 parameters get no gradient and stay as they are, such as towers.0.encoders.text.idle"]
