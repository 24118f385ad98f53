"""Texts of a batch one after the other instead of side by side: what is padding is not computed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from finetuner_core.modeling.attention import packed_attention

_NAME = "finetuner_packed"


def pack(encoder: PreTrainedModel) -> None:
    """Has a network attend among the tokens of each text, as `last_hidden_state` then needs it."""
    encoder.set_attn_implementation(_NAME)


def unpack(encoder: PreTrainedModel) -> None:
    """Has a network that was packed compute padded texts again, by transformers' own attention."""
    encoder.set_attn_implementation("eager")


def last_hidden_state(encoder: PreTrainedModel, input_ids: Tensor, mask: Tensor, first_position: int) -> Tensor:
    """The last hidden state of a network, computed for real tokens alone.

    Linear layers, norms and activations take a token at a time, and see the tokens of all texts as one long text;
    attention alone has to know where one text ends and the next begins, and positions start anew with each.

    Args:
        encoder: a network that was packed.
        input_ids: int64 (B, T).
        mask: bool (B, T), true where a token is real.
        first_position: of each text.

    Returns:
        float (B, T, D), zero where there is no token.
    """
    lengths = mask.sum(1)
    # Texts of one length side by side, so that attention takes them together.
    order = lengths.argsort(descending=True, stable=True)
    texts, columns = mask[order].nonzero(as_tuple=True)
    at = order[texts] * mask.shape[1] + columns  # of each token, its place in (B, T)
    positions = (mask.cumsum(1) - 1 + first_position).flatten()[at]
    hidden: Tensor = encoder(
        input_ids=input_ids.flatten()[at].unsqueeze(0),
        position_ids=positions.unsqueeze(0),
        use_cache=False,
        text_lengths=tuple(lengths[order].tolist()),
    ).last_hidden_state[0]
    padded = hidden.new_zeros(mask.numel(), hidden.shape[-1]).index_copy(0, at, hidden)
    return padded.view(*mask.shape, -1)


def first_position(encoder: PreTrainedModel) -> int:
    """The position of a text's first token. RoBERTa and its relatives count from behind that of the padding."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = table.padding_idx if isinstance(table, nn.Embedding) else None
    return 0 if padding is None else int(padding) + 1


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    text_lengths: Sequence[int] | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """What transformers calls in the place of its own attention, with tensors (1, H, N, D); it gives (1, N, H, D)."""
    assert text_lengths is not None, f"{type(module).__name__} was not told where the texts are"
    assert attention_mask is None
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = packed_attention(
        query,
        key,
        value,
        text_lengths,
        scale=scaling,
        causal=bool(getattr(module, "is_causal", False) if is_causal is None else is_causal),
        window=sliding_window,
        dropout=dropout,
    )
    return out.unsqueeze(0), None


AttentionInterface.register(_NAME, _attend)
