"""Activation checkpointing: the same gradients from less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.dropout import use_fast_dropout
from finetuner_core.training.checkpointing import checkpointed
from finetuner_core.values import Modality

pytestmark = pytest.mark.usefixtures("acme")


@pytest.mark.parametrize("name", ["letters", "pixels"])
def test_gradients_are_the_same_with_dropout_on_and_nothing_is_left_behind(name: str) -> None:
    modality: Modality = "text" if name == "letters" else "image"
    options: dict[str, Any] = {"dropout": 0.4} if name == "letters" else {}
    model = build_model(name, **options)
    use_fast_dropout(model)
    model.train()
    encoder = model.encoder(modality)
    batch = model.preprocess(modality).collate(
        model.preprocess(modality).prepare(["abc", "a longer one"])
        if name == "letters"
        else [torch.randint(0, 255, (3, 20, 20), dtype=torch.uint8) for _ in range(4)]
    )

    def run() -> tuple[int, list[Tensor | None]]:
        model.zero_grad()
        torch.manual_seed(0)
        kept = 0

        def see(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            embedded = encoder(batch)
        (embedded * torch.arange(embedded.numel()).view(embedded.shape)).sum().backward()
        return kept, [p.grad for p in encoder.parameters()]

    _, expected = run()
    with checkpointed(encoder.extractor):
        _, found = run()
    for own, right in zip(found, expected, strict=True):
        assert (own is None) == (right is None)
        if own is not None:
            torch.testing.assert_close(own, right)
    assert not any("forward" in vars(module) for module in encoder.modules())
