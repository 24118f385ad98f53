"""Texts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetuner_core.interfaces import Batch


class TextPreprocess:
    """Tokenises ahead, and pads in the batch to its longest text.

    Args:
        tokenizer: the model's own.
        max_length: how many tokens of a text are kept, special ones included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def prepare(self, items: Sequence[object]) -> list[list[int]]:
        """Token ids of each text."""
        encoded = self.tokenizer(list(items), truncation=True, max_length=self.max_length)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def length(self, prepared: list[int]) -> int:
        """How many tokens it has."""
        return len(prepared)

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        """`input_ids` and `attention_mask`, int64 (B, T), padded on the right."""
        longest = max(map(len, prepared))
        padding = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": torch.tensor([ids + [padding] * (longest - len(ids)) for ids in prepared]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in prepared]),
        }

    def save(self, folder: Path) -> None:
        """Writes the tokenizer, with the limit, as JSON."""
        self.tokenizer.model_max_length = self.max_length
        # An embedding model does not chat, and the template would be a file that is no JSON.
        self.tokenizer.chat_template = None
        self.tokenizer.save_pretrained(folder)


def read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or folder.

    Raises:
        ValueError: if it is one that cannot be saved as JSON.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError(f"its tokenizer, a {type(tokenizer).__name__}, has no tokenizer.json")
    return tokenizer


def max_length(tokenizer: PreTrainedTokenizerBase, positions: int | None, wanted: object) -> int:
    """How many tokens a text may have: what is wanted, but never more than the tokenizer and the network allow.

    Args:
        tokenizer: its `model_max_length` is astronomically large where its authors did not say.
        positions: how many positions the network knows, `None` where any number.
        wanted: what was asked for, if anything was.
    """
    limits = (tokenizer.model_max_length, positions, wanted)
    return min(int(limit) for limit in limits if isinstance(limit, int | float))
