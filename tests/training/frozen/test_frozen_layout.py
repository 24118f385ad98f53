"""What is taken apart into items is the same when it is put together again, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from finetuner_core.training.frozen.layout import Layout, NotCachedError, Part, Sizes, axes_of

LENGTHS = [2, 5, 1, 5]
FIVE = Sizes(4, 5, 13)
SEVEN = Sizes(3, 7, 11)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(100).to(dtype)


@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [
        ((4, 8, 2), (3, 8, 2), ("B", 8, 2)),
        ((4, 5, 8), (3, 7, 8), ("B", "T", 8)),
        ((1, 13, 8), (1, 11, 8), (1, "N", 8)),
        ((13, 8), (11, 8), ("N", 8)),
        ((5, 8), (5, 8), (5, 8)),
        ((4, 2, 5, 5), (3, 2, 7, 7), ("B", 2, "T", "T")),
        ((4, 9), (3, 10), None),
        ((4, 9), (3, 9, 1), None),
    ],
)
def test_axes_are_named_by_how_they_change(first: tuple[int, ...], second: tuple[int, ...], axes: object) -> None:
    assert axes_of(torch.empty(first), torch.empty(second), (FIVE, SEVEN)) == axes


def test_items_without_tokens_have_no_axis_of_tokens() -> None:
    sizes = (Sizes(4), Sizes(3))
    assert axes_of(torch.empty(4, 5), torch.empty(3, 5), sizes) == ("B", 5)
    assert axes_of(torch.empty(4, 5), torch.empty(3, 7), sizes) is None


@pytest.mark.parametrize(
    ("axes", "possible"),
    [(("B", 8), True), (("B", "T"), True), ((1, "N", 8), True), (("B", 2, "T"), False), ((5, 8), False), ((), False)],
)
def test_only_what_begins_with_its_items_can_be_taken_apart(axes: tuple[str | int, ...], possible: bool) -> None:
    assert Part(axes, torch.float32).is_possible == possible  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_slices_of_a_batch_come_back_in_another_order_bit_by_bit(dtype: torch.dtype) -> None:
    layout = Layout((Part(("B", 3, 2), dtype), Part(("B",), torch.int64)))
    maps, single = numbers(4, 3, 2, dtype=dtype), torch.arange(4)
    records = layout.records([maps, single], layout.mask([1] * 4))
    (first, second), mask = layout.tensors([records[2], records[0]])
    assert first.dtype == dtype
    assert torch.equal(first, maps[[2, 0]])
    assert torch.equal(second, single[[2, 0]])
    assert mask.tolist() == [[True], [True]]


def test_a_map_keeps_its_order_in_memory() -> None:
    map_ = numbers(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    layout = Layout((Part(("B", 3, 5, 6), torch.float32, channels_last=True),))
    (joined,), _ = layout.tensors(layout.records([map_], layout.mask([1] * 4)))
    assert torch.equal(joined, map_)
    assert joined.stride() == map_.stride()


@pytest.mark.parametrize("left", [False, True])
def test_padding_is_not_kept_and_is_as_wide_as_the_new_batch_needs(left: bool) -> None:
    layout = Layout((Part(("B", "T", 3), torch.float32), Part(("B", 2), torch.float32)), left)
    tokens, vectors = numbers(4, 6, 3), numbers(4, 2)
    mask = layout.mask(LENGTHS, 6)
    tokens[~mask] = torch.nan
    records = layout.records([tokens, vectors], mask)
    assert [len(record) for record in records] == [4 * (3 * length + 2) for length in LENGTHS]
    assert [layout.tokens(record) for record in records] == LENGTHS
    (joined, others), own = layout.tensors([records[0], records[2]])
    assert own.tolist() == ([[True, True], [False, True]] if left else [[True, True], [True, False]])
    assert torch.equal(joined[own], torch.cat([tokens[0][mask[0]], tokens[2][mask[2]]]))
    assert not joined[~own].any()
    assert torch.equal(others, vectors[[0, 2]])


@pytest.mark.parametrize("leading", [(), (1,)])
def test_packed_tokens_stand_longest_first_and_equal_lengths_in_order(leading: tuple[int, ...]) -> None:
    def packed(own: list[int]) -> Tensor:
        """As packing does it: of item i the tokens 10 i, 10 i + 1, ..., sorted as PyTorch sorts."""
        lengths = torch.tensor([LENGTHS[number] for number in own])
        order = lengths.argsort(descending=True, stable=True).tolist()
        rows = [torch.arange(LENGTHS[own[at]]) + 10 * own[at] for at in order]
        return torch.cat(rows).float().unsqueeze(-1).view(*leading, -1, 1)

    layout = Layout((Part((*leading, "N", 1), torch.float32),))
    records = layout.records([packed([0, 1, 2, 3])], layout.mask(LENGTHS))
    for own in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 1], [2]):
        (joined,), mask = layout.tensors([records[number] for number in own])
        assert torch.equal(joined, packed(own))
        assert mask.sum(1).tolist() == [LENGTHS[number] for number in own]


@pytest.mark.parametrize("tensor", [numbers(4, 3), numbers(3, 2), numbers(4, 2, dtype=torch.float64)])
def test_what_is_not_as_before_is_refused(tensor: Tensor) -> None:
    layout = Layout((Part(("B", 2), torch.float32),))
    with pytest.raises(NotCachedError, match=r"some items give .* where others give \(4, 2\) torch.float32"):
        layout.records([tensor], layout.mask([1] * 4))
