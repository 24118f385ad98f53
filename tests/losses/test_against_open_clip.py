"""SigLIP against that of OpenCLIP."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finetuner_core.losses.siglip import SigLIPLoss

loss_of_open_clip = pytest.importorskip("open_clip.loss")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (3.0, 1.0)])
def test_siglip(seed: int, scale: float, bias: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    images, texts = F.normalize(rows, dim=2)
    loss, numbers = SigLIPLoss(scale=scale, bias=bias).double(), torch.arange(7)

    own = loss(images, numbers, texts, numbers)
    theirs = loss_of_open_clip.SigLipLoss()(images, texts, loss.scale, loss.bias)

    torch.testing.assert_close(own, theirs, rtol=0.0, atol=1e-6)
    inputs = [rows, *loss.parameters()]
    gradients = [torch.autograd.grad(value, inputs, retain_graph=True) for value in (own, theirs)]
    torch.testing.assert_close(*gradients, rtol=0.0, atol=1e-6)
