"""Texts as token ids."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetuner_core.interfaces import Batch
from finetuner_core.plugin import DataError
from finetuner_core.values import quote

UNLIMITED = sys.maxsize >> 32
"""The length where neither the tokenizer nor the network knows a limit: more than any text has, and a 32-bit number."""


class TokenIds(NamedTuple):
    """A text as the network reads it.

    Args:
        ids: of its tokens, special ones and the prompt's included.
        is_cut: whether more tokens followed.
        unpooled: how many of the first ones are read but do not enter the pooling.
    """

    ids: list[int]
    is_cut: bool
    unpooled: int = 0


class TextPreprocess:
    """Tokenises ahead, and pads in the batch to its longest text.

    Args:
        tokenizer: the model's own.
        max_length: how many tokens of a text are kept, special ones included.
        prompt: what is put before each text.
        pool_prompt: whether the prompt's tokens enter the pooling.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "", *, pool_prompt: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompt = prompt
        self.pool_prompt = pool_prompt
        self._unpooled = 0 if pool_prompt or not prompt else self._length_of_prompt()

    def prepare(self, items: Sequence[object]) -> list[TokenIds]:
        """Token ids of each text.

        Raises:
            DataError: if one is no text that can be written down.
        """
        texts = [f"{self.prompt}{item}" for item in items] if self.prompt else list(items)
        if not texts:
            return []
        try:
            encoded = self.tokenizer(
                texts,
                truncation=True,
                max_length=self.max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        except (TypeError, UnicodeError):
            if (broken := next((text for text in texts if not _is_unicode(text)), None)) is None:
                raise
            raise DataError(
                f"{quote(broken)} holds half of a character (a lone surrogate), which no tokenizer reads.\n"
                "Write the text anew, as UTF-8."
            ) from None
        # What was cut off the tokenizer keeps beside what it gives.
        return [TokenIds(one.ids or [self._filler], bool(one.overflowing), self._unpooled) for one in encoded.encodings]

    def length(self, prepared: TokenIds) -> int:
        """How many tokens it has."""
        return len(prepared.ids)

    def is_cut(self, prepared: TokenIds) -> bool:
        """Whether the text had more tokens than are read."""
        return prepared.is_cut

    def collate(self, prepared: Sequence[TokenIds]) -> Batch:
        """`input_ids` and `attention_mask`, int64 (B, T); and `pooled`, the mask without a prompt that is not pooled.

        Padded on the right, whatever the tokenizer's own side: there, every network counts positions from the text's
        first token, and a causal one sees no padding.
        """
        longest = max(len(text.ids) for text in prepared)
        padding = self.tokenizer.pad_token_id or 0
        mask = [[1] * len(text.ids) + [0] * (longest - len(text.ids)) for text in prepared]
        batch = {
            "input_ids": torch.tensor([text.ids + [padding] * (longest - len(text.ids)) for text in prepared]),
            "attention_mask": torch.tensor(mask),
        }
        if not self.pool_prompt:
            after = torch.tensor([text.unpooled for text in prepared]).unsqueeze(1)
            batch["pooled"] = batch["attention_mask"] * (torch.arange(longest) >= after)
        return batch

    def with_prompt(self, prompt: str) -> TextPreprocess:
        """The same for texts with another prompt."""
        return TextPreprocess(self.tokenizer, self.max_length, prompt, pool_prompt=self.pool_prompt)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer, with the limit, as JSON."""
        self.tokenizer.model_max_length = self.max_length
        # An embedding model does not chat, and the template would be a file that is no JSON.
        self.tokenizer.chat_template = None
        self.tokenizer.save_pretrained(folder)

    def export(self, folder: Path) -> Mapping[str, object]:
        """Writes `tokenizer.json`, which cuts and pads as this does, for the library `tokenizers` alone."""
        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.enable_truncation(self.max_length, direction=self.tokenizer.truncation_side)
        tokenizer.enable_padding(**self._padding())
        tokenizer.save(str(folder / "tokenizer.json"))
        unpooled = {} if self.pool_prompt else {"unpooled_tokens": self._unpooled}
        return {"tokenizer": "tokenizer.json", "max_length": self.max_length, "prompt": self.prompt, **unpooled}

    def _padding(self) -> dict[str, Any]:
        """How a batch is padded, in the words of the library `tokenizers`."""
        token = self.tokenizer.pad_token_id or 0
        return {"pad_id": token, "pad_token": self.tokenizer.convert_ids_to_tokens(token), "direction": "right"}

    @property
    def _filler(self) -> int:
        """The token of an empty text where the tokenizer adds none: a network cannot read nothing."""
        names = ("eos_token_id", "bos_token_id", "unk_token_id", "pad_token_id")
        return next((token for name in names if isinstance(token := getattr(self.tokenizer, name), int)), 0)

    def _length_of_prompt(self) -> int:
        """The prompt's tokens as sentence-transformers counts them: alone, without a special token at its end."""
        (alone,) = TextPreprocess(self.tokenizer, self.max_length, self.prompt).prepare([""])
        return len(alone.ids) - (alone.ids[-1] in self.tokenizer.all_special_ids)


def _is_unicode(text: object) -> bool:
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or folder.

    Raises:
        ValueError: if it cannot be read, or is one that cannot be saved as JSON.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:  # Of its own the library raises nothing more exact.
        raise ValueError(f"its tokenizer cannot be read: {error}") from error
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
    limits = (tokenizer.model_max_length, positions, wanted, UNLIMITED)
    return min(int(limit) for limit in limits if isinstance(limit, int | float))
