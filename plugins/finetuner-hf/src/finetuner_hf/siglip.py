"""What is SigLIP's own: texts that are always padded to one length, its tokenizer as JSON, and images of any shape."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetuner_core.interfaces import Batch
from finetuner_core.plugin import WeightsError
from finetuner_hf.tokens import TextPreprocess, TokenIds

MODEL_TYPES = ("siglip", "siglip2")

# The tokenizer's own texts keep their case; SigLIP 2 was trained on texts in lower case.
_IN_LOWER_CASE = ("Gemma", "Siglip2")


class FixedLengthPreprocess(TextPreprocess):
    """Pads every text to the length that the network was trained with.

    SigLIP sees the padding: it takes its vector from the last position, and masks nothing.
    """

    def length(self, prepared: TokenIds) -> int:
        """How many tokens the network sees: as many of every text."""
        return self.max_length

    def collate(self, prepared: Sequence[TokenIds]) -> Batch:
        """`input_ids`, int64 (B, max_length)."""
        padding = self.tokenizer.pad_token_id or 0
        rows = []
        for text in prepared:
            filling = [padding] * (self.max_length - len(text.ids))
            rows.append(filling + text.ids if self.tokenizer.padding_side == "left" else text.ids + filling)
        return {"input_ids": torch.tensor(rows)}

    def _padding(self) -> dict[str, Any]:
        return super()._padding() | {"length": self.max_length, "direction": self.tokenizer.padding_side}


def read_siglip_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or folder of SigLIP or SigLIP 2, in a form that can be saved as JSON.

    Raises:
        WeightsError: if it has to be made of a SentencePiece model, and what reads those is not installed.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except ImportError as error:
        raise WeightsError(
            f"The tokenizer of {name} is a SentencePiece model, and what reads those is not installed.\n"
            "Run: pip install sentencepiece protobuf   A model that Finetuner has saved does not need them."
        ) from error
    if not tokenizer.is_fast:
        return _converted(tokenizer)
    if type(tokenizer).__name__.startswith(_IN_LOWER_CASE):
        backend = tokenizer.backend_tokenizer
        own = [] if backend.normalizer is None else [backend.normalizer]
        # Twice in lower case is once in lower case.
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer


def _converted(slow: Any) -> PreTrainedTokenizerBase:
    """SigLIP's tokenizer, which transformers has in Python alone, as a `tokenizer.json`.

    It puts texts in lower case, takes the punctuation away, and then has SentencePiece cut them.
    """
    pieces = slow.sp_model
    vocabulary = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in range(pieces.get_piece_size())]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=pieces.unk_id(), byte_fallback=False))
    steps: list[Any] = [normalizers.Lowercase()] if slow.do_lower_case else []
    steps.append(normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""))
    if charsmap := _charsmap(pieces):
        steps.append(normalizers.Precompiled(charsmap))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    end = (slow.eos_token, slow.eos_token_id)
    backend.post_processor = processors.TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    special = {slow.eos_token, slow.pad_token, slow.unk_token}
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in sorted(special)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        eos_token=slow.eos_token,
        pad_token=slow.pad_token,
        unk_token=slow.unk_token,
        model_max_length=slow.model_max_length,
        padding_side=slow.padding_side,
    )


def _charsmap(pieces: Any) -> bytes:
    """How a SentencePiece model replaces characters before it cuts."""
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    proto.ParseFromString(pieces.serialized_model_proto())
    charsmap: bytes = proto.normalizer_spec.precompiled_charsmap
    return charsmap
