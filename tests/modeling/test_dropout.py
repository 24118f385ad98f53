"""Fast dropout: the distribution, the gradient and the seed of the one that it stands for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from finetuner_core.modeling.dropout import FastDropout, draw, mask, use_fast_dropout

COUNT = 400_000


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_so_many_are_dropped_and_the_others_scaled(p: float) -> None:
    torch.manual_seed(0)
    dropped = FastDropout(p)(torch.ones(COUNT))
    share = float((dropped == 0).float().mean())
    # Six standard deviations of a binomial share, and half a step of 1/65,536.
    assert abs(share - p) < 6 * math.sqrt(p * (1 - p) / COUNT) + 2**-17
    torch.testing.assert_close(
        dropped[dropped != 0], torch.full_like(dropped[dropped != 0], 1 / (1 - p)), rtol=2e-4, atol=0
    )
    assert abs(float(dropped.mean()) - 1) < 6 * math.sqrt(p / (1 - p) / COUNT)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 64, 1000])
def test_what_is_dropped_says_nothing_of_its_neighbours(lag: int) -> None:
    torch.manual_seed(1)
    kept = mask(draw(COUNT), 0.3, torch.empty(COUNT, dtype=torch.float64))
    centred = kept - kept.mean()
    correlation = float((centred[:-lag] * centred[lag:]).mean() / centred.var())
    assert abs(correlation) < 6 / math.sqrt(COUNT)


def test_one_mask_says_nothing_of_the_next() -> None:
    torch.manual_seed(2)
    first, second = (draw(COUNT).double() for _ in range(2))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 6 / math.sqrt(COUNT)


def test_every_value_of_a_lane_comes_as_often() -> None:
    torch.manual_seed(3)
    counts = torch.bincount((draw(2**22).int() + 2**15) // 256, minlength=256).double()
    chi_squared = float(((counts - 2**14) ** 2 / 2**14).sum())
    assert abs(chi_squared - 255) < 6 * math.sqrt(2 * 255)


def test_the_seed_and_a_restored_state_give_the_same_again() -> None:
    layer, ones = FastDropout(0.5), torch.ones(1001)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = layer(ones), layer(ones)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(layer(ones), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_dropped_where_the_input_was(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = torch.randn(3, 5, 7, dtype=dtype).requires_grad_()
    dropped = FastDropout(0.4)(given)
    assert dropped.dtype is dtype
    weights = torch.randn(3, 5, 7, dtype=dtype)
    (dropped * weights).sum().backward()
    expected = torch.where(dropped == 0, 0, weights / 0.6)
    torch.testing.assert_close(
        given.grad, expected.to(dtype), rtol=2e-2 if dtype is torch.bfloat16 else 2e-4, atol=1e-6
    )


def test_nothing_is_dropped_in_evaluation_or_at_zero_and_all_at_one() -> None:
    given = torch.randn(10)
    assert FastDropout(0.5).eval()(given) is given
    assert FastDropout(0.0)(given) is given
    assert not FastDropout(1.0)(given).any()


def test_an_empty_tensor_stays_empty() -> None:
    assert FastDropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_it_takes_the_place_of_plain_dropout_alone() -> None:
    first, spatial, last = nn.Dropout(0.2), nn.Dropout2d(0.3), nn.Dropout(0.4).eval()
    use_fast_dropout(nn.Sequential(first, nn.Linear(2, 2), nn.ModuleList([spatial, last])))
    assert [type(each) for each in (first, spatial, last)] == [FastDropout, nn.Dropout2d, FastDropout]
    assert [(each.p, each.training) for each in (first, last)] == [(0.2, True), (0.4, False)]
