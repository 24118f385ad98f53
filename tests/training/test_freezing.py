"""What is frozen does not move in a real training, and all else does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from finetuner_core.data.batches import ClassBatches
from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.errors import OptionError
from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.training.freezing import batch_statistics, freeze
from finetuner_core.training.loop import Plan, train
from finetuner_core.training.objective import Objective

pytestmark = pytest.mark.usefixtures("acme")

PLAN = Plan(
    epochs=2,
    learning_rate=0.01,
    weight_decay=0.1,
    warmup=0,
    schedule="linear",
    max_grad_norm=1.0,
    dtype=torch.float32,
    mirror=None,
    seed=0,
)


def images() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), dtype=np.uint8)
    return Dataset((Column("image", "image", [Image.fromarray(image) for image in pixels]),), list("aaaabbbb"))


def moved(model: EmbeddingModel, what: str | int | None) -> set[str]:
    """Names of the tensors that a training moves, batch statistics among them."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = images()
    train(
        model,
        [Objective(data, ContrastiveLoss(margin=2), ClassBatches(data, 8, 4, 0))],
        PLAN,
        frozen=freeze(model, what),
    )
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def names(model: EmbeddingModel, *parts: str) -> set[str]:
    return {name for name in model.state_dict() if any(part in name for part in parts)}


def test_without_freezing_everything_moves() -> None:
    model = build_model("pixels", output_dim=4)
    assert moved(model, None) == set(model.state_dict())


def test_a_frozen_stage_stays_with_its_batch_statistics_and_all_else_moves() -> None:
    model = build_model("pixels", output_dim=4)
    still = names(model, "pixels_in", "pixels_norm")
    assert {name.rpartition(".")[2] for name in still} >= {"weight", "bias", "running_mean", "running_var"}
    assert moved(model, 1) == set(model.state_dict()) - still


def test_of_a_frozen_backbone_only_the_projection_moves() -> None:
    model = build_model("pixels", output_dim=4)
    assert moved(model, "backbone") == names(model, "projection") != set()


def test_what_was_frozen_before_is_not_frozen_again() -> None:
    model = build_model("pixels", output_dim=4)
    moved(model, "backbone")
    assert moved(model, None) == set(model.state_dict())


def test_pretrained_batch_statistics_are_kept_while_scale_and_shift_are_trained() -> None:
    model = build_model("pixels")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = images()
    train(
        model,
        [Objective(data, ContrastiveLoss(margin=2), ClassBatches(data, 8, 4, 0))],
        PLAN,
        frozen=batch_statistics(model),
    )
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == names(model, "running_mean", "running_var", "num_batches_tracked") != set()


def test_from_random_weights_there_are_no_batch_statistics_to_keep() -> None:
    assert batch_statistics(build_model("pixels", pretrained=False)) == []
    assert batch_statistics(build_model("letters")) == []


def test_both_towers_are_frozen() -> None:
    model = build_model("both")
    freeze(model, 1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parameters = {name for name, _ in model.named_parameters()}
    assert frozen == names(model, "letters_in", "pixels_in", "pixels_norm") & parameters


def test_dropout_of_a_frozen_stage_is_off_during_training() -> None:
    model = build_model("letters", dropout=0.5)
    modes: list[tuple[bool, bool]] = []

    class Watching(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            network = model.encoder("text").extractor
            inside = ("network.letters_drop", "network.letters_out")
            modes.append(tuple(network.get_submodule(name).training for name in inside))  # type: ignore[arg-type]
            return embeddings.sum()

    data = Dataset((Column("text", "text", ["a", "b", "c", "d"]),), list("aabb"))
    batches = ClassBatches(data, 4, 2, 0)
    train(model, [Objective(data, Watching(), batches)], PLAN, frozen=freeze(model, 1))
    assert modes == [(False, True)] * (2 * batches.per_epoch)
    train(model, [Objective(data, Watching(), batches)], PLAN, frozen=freeze(model, None))
    assert modes[-1] == (True, True)
    assert not model.training


@pytest.mark.parametrize(("name", "what"), [("pixels", "backbone"), ("letters", 2), ("both", 2)])
def test_something_has_to_be_left(name: str, what: str | int) -> None:
    with pytest.raises(OptionError) as caught:
        freeze(build_model(name), what)
    assert str(caught.value).startswith(f"freeze is {what}, which leaves nothing of {name} to train.\n")
    assert "output_dim=256" in str(caught.value)


def test_no_more_stages_than_there_are() -> None:
    with pytest.raises(OptionError, match="freeze is 3, but pixels has 2 stages: in, out"):
        freeze(build_model("pixels"), 3)


def test_all_stages_are_the_backbone() -> None:
    by_number, by_name = build_model("pixels", output_dim=4), build_model("pixels", output_dim=4)
    freeze(by_number, 2)
    freeze(by_name, "backbone")
    assert [p.requires_grad for p in by_number.parameters()] == [p.requires_grad for p in by_name.parameters()]


@pytest.mark.parametrize(("what", "prefix"), [("text", "letters_"), ("image", "pixels_")])
def test_one_tower_is_frozen_and_the_other_trained(what: str, prefix: str) -> None:
    model = build_model("pixels", text_model="letters", output_dim=4)
    freeze(model, what)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if prefix in name} != set()
    one = build_model("both")
    freeze(one, what)
    assert all((prefix in name) is not parameter.requires_grad for name, parameter in one.named_parameters())


@pytest.mark.parametrize("what", ["query", "document"])
def test_the_tower_of_one_side_is_frozen(what: str) -> None:
    model = build_model("letters", text_model="letters", output_dim=4)
    freeze(model, what)
    (frozen,) = {side for side, tower in model.sided_towers() if not all(p.requires_grad for p in tower.parameters())}
    assert frozen == what


def test_a_tower_that_is_not_there() -> None:
    with pytest.raises(OptionError, match="freeze is query, but both has only backbone, image, text"):
        freeze(build_model("both"), "query")


def test_beside_lora_the_backbone_stays_and_all_else_moves() -> None:
    pytest.importorskip("peft", reason="LoRA needs PEFT")
    from finetuner_core.modeling import lora
    from finetuner_core.values import resolve_options

    model = build_model("pixels", output_dim=4, pooling="gem")
    lora.inject(model.tower("image").encoders, 2, resolve_options(lora.OPTIONS, {}, "lora"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = images()
    frozen = [*freeze(model, None), *batch_statistics(model)]
    train(model, [Objective(data, ContrastiveLoss(margin=2), ClassBatches(data, 8, 4, 0))], PLAN, frozen=frozen)
    moving = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moving == names(model, "lora_", "projection", "pooling.p") != set()
