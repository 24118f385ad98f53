"""Losses by name, over widths and with a memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from finetuner_core.errors import OptionError
from finetuner_core.losses.build import build_loss, loss_options
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.matryoshka import MatryoshkaLoss
from finetuner_core.losses.memory import MemoryLoss

LABELLED = """
    import torch
    from finetuner_core.plugin import LossInfo, hookimpl
    @hookimpl
    def list_losses():
        return [LossInfo("classes", "", forms=("labelled",)), LossInfo("plain", "")]
    @hookimpl
    def build_loss(info, dim):
        class Loss(torch.nn.Module):
            def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
                return embeddings.sum() * dim
        return Loss()
"""


def test_a_loss_by_name() -> None:
    loss = build_loss("infonce", 8, loss_options("infonce", {"temperature": 0.2}))
    assert isinstance(loss, InfoNCELoss)
    assert loss.temperature.item() == pytest.approx(0.2)


def test_over_widths_the_whole_one_is_always_there() -> None:
    loss = build_loss("siglip", 8, loss_options("siglip", {}), matryoshka=(2, 4, 2))
    assert isinstance(loss, MatryoshkaLoss)
    assert list(loss.weights) == [8, 4, 2]


def test_each_width_is_built_as_such(install_plugin: Callable[..., None]) -> None:
    install_plugin("more", LABELLED)
    embeddings = F.normalize(torch.randn(3, 8), dim=1)
    value = build_loss("plain", 8, {}, matryoshka=(2,))(embeddings, torch.arange(3))
    expected = 8 * embeddings.sum() + 2 * F.normalize(embeddings[:, :2], dim=1).sum()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("width", [9, 0, -1])
def test_a_width_that_embeddings_do_not_have_is_refused(width: int) -> None:
    with pytest.raises(OptionError, match=f'the width "{width}"; embeddings of this model have 8 features'):
        build_loss("infonce", 8, loss_options("infonce", {}), matryoshka=(4, width))


def test_with_a_memory_it_has_the_whole_width() -> None:
    loss = build_loss("infonce", 8, loss_options("infonce", {}), matryoshka=(4,), memory=20)
    assert isinstance(loss, MemoryLoss)
    assert isinstance(loss.loss, MatryoshkaLoss)
    assert loss.embeddings.shape == (20, 8)


@pytest.mark.parametrize("name", ["cosent", "classes", "plain"])
def test_a_loss_that_cannot_use_a_memory_is_refused_by_name(name: str, install_plugin: Callable[..., None]) -> None:
    install_plugin("more", LABELLED)
    with pytest.raises(OptionError, match=f"The loss {name} cannot compare a batch with those before it.\nLeave out"):
        build_loss(name, 8, loss_options(name, {}), memory=20)
