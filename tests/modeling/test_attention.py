"""Attention of packed texts: against one text, one head and one token at a time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from finetuner_core.modeling import attention
from finetuner_core.modeling.attention import How, packed_attention
from finetuner_core.modeling.dropout import draw, mask, scale_of

LENGTHS = (9, 9, 5, 1, 1, 4, 9)
HEADS, DIM = 4, 8


def tensors(heads: int = HEADS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(LENGTHS), own, DIM) for own in (HEADS, heads, heads)]
    query, key, value = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    return query, key, value


def naive(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    factors: list[Tensor] | None = None,
    *,
    scale: float = DIM**-0.5,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    rows: list[Tensor] = []
    start = 0
    shared = query.shape[1] // key.shape[1]
    for text, length in enumerate(LENGTHS):
        for at in range(length):
            heads = []
            for head in range(query.shape[1]):
                seen = [
                    other
                    for other in range(length)
                    if not (causal and other > at) and not (window is not None and abs(at - other) >= window)
                ]
                keys = torch.stack([key[start + other, head // shared] for other in seen])
                values = torch.stack([value[start + other, head // shared] for other in seen])
                weights = torch.softmax(keys @ query[start + at, head] * scale, 0)
                if factors is not None:
                    weights = weights * factors[text][head, at, seen]
                heads.append(weights @ values)
            rows.append(torch.stack(heads))
        start += length
    return torch.stack(rows)


def gradients(out: Tensor, given: Sequence[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad((out * weights).sum(), given))


@pytest.mark.parametrize("heads", [HEADS, 2, 1])
@pytest.mark.parametrize(
    "settings", [{}, {"causal": True}, {"window": 3}, {"window": 3, "causal": True}, {"window": 50}, {"scale": 1.5}]
)
def test_a_token_attends_to_those_of_its_text(settings: dict[str, Any], heads: int) -> None:
    given = tensors(heads)
    packed, expected = packed_attention(*given, LENGTHS, **settings), naive(*given, **settings)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-6)
    for own, right in zip(gradients(packed, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [HEADS, 1])
@pytest.mark.parametrize(
    "how", [How(0.3, False, None, 0), How(0.3, True, None, 0), How(0.3, False, 3, 0), How(0.3, True, 3, 0)]
)
def test_padded_for_attention_alone_it_is_the_same(how: How, heads: int) -> None:
    given = tensors(heads)
    padded = attention._padded(*given, LENGTHS, how)
    expected = naive(*given, scale=how.scale, causal=how.causal, window=how.window)
    torch.testing.assert_close(padded, expected, rtol=1e-5, atol=1e-6)
    for own, right in zip(gradients(padded, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_the_kernel_is_told_where_each_text_ends(
    causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed to see that it is called as its documentation says, by a naive function in its place."""

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, ends: Tensor, k_ends: Tensor, max_q: int, max_k: int, **more: Any
    ) -> Tensor:
        assert ends.dtype is torch.int32
        assert torch.equal(ends, k_ends)
        assert ends.diff().tolist() == list(LENGTHS)
        assert max_q == max_k == max(LENGTHS)
        before, behind = more["window_size"]
        assert behind == (0 if causal else before)
        far = None if before == -1 else before + 1
        return naive(q, k, v, scale=more["scale"], causal=causal, window=far)

    monkeypatch.setattr(attention, "kernel", lambda: varlen_attn)
    given = tensors(2)
    how = How(0.4, causal, window, 0)
    made = attention._by_kernel(*given, LENGTHS, how)
    torch.testing.assert_close(made, packed_attention(*given, LENGTHS, scale=0.4, causal=causal, window=window))


def test_the_installed_kernel_has_the_names_that_it_is_called_by() -> None:
    found = attention.kernel()
    if found is None:
        pytest.skip("this PyTorch has no attention for texts of any length, or an older one")
    names = list(inspect.signature(found).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


@pytest.mark.parametrize("heads", [HEADS, 2])
@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"window": 3}, {"window": 3, "causal": True}])
def test_dropped_weights_are_those_that_were_drawn(settings: dict[str, Any], heads: int) -> None:
    p = 0.3
    given = tensors(heads)
    torch.manual_seed(7)
    packed = packed_attention(*given, LENGTHS, dropout=p, **settings)
    torch.manual_seed(7)
    factors: list[Tensor] = []
    for texts, length in [(2, 9), (1, 5), (2, 1), (1, 4), (1, 9)]:
        lanes = draw(texts * HEADS * length * length).view(texts, HEADS, length, length)
        factors += mask(lanes, p, torch.empty(lanes.shape)) * scale_of(p)
    expected = naive(*given, factors, **settings)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-6)
    for own, right in zip(gradients(packed, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_expected_value() -> None:
    query, key, value = (tensor.detach() for tensor in tensors())
    torch.manual_seed(0)
    mean = torch.stack([packed_attention(query, key, value, LENGTHS, dropout=0.2) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, packed_attention(query, key, value, LENGTHS), rtol=0, atol=0.08)


def test_half_precision_is_computed_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def watch(query: Tensor, *rest: Any, **more: Any) -> Tensor:
        seen.append(query.dtype)
        return original(query, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    given = tensors(dtype=torch.bfloat16)
    packed = packed_attention(*given, LENGTHS)
    assert packed.dtype is torch.bfloat16
    assert set(seen) == {torch.float32}
    query, key, value = (tensor.float() for tensor in given)
    expected = packed_attention(query, key, value, LENGTHS)
    torch.testing.assert_close(packed, expected.bfloat16())
