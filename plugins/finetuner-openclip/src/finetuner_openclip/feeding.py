"""Feeds a network of open_clip: its own tokenizer, and its own transform of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.interfaces import Batch
from finetuner_core.plugin import WeightsError
from finetuner_openclip.architectures import Architecture
from finetuner_openclip.library import need_transformers, open_clip, unheard


class TokenIds(NamedTuple):
    """A text as the network reads it.

    Args:
        ids: int64 (T,), padded to all that the network reads: not every one of them knows what padding is.
        is_cut: whether more tokens followed.
    """

    ids: Tensor
    is_cut: bool


class TextPreprocess:
    """Tokenises as open_clip does, cleaning and lower case included.

    Args:
        tokenizer: the model's own, of open_clip.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.max_length: int = tokenizer.context_length

    def prepare(self, items: Sequence[object]) -> list[TokenIds]:
        """Token ids of each text."""
        # One by one: what is pickled of a row of a tensor would be all of the tensor.
        return [TokenIds(self.tokenizer([item])[0], self._tokens(item) > self.max_length) for item in items]

    def length(self, prepared: TokenIds) -> int:
        """What the network reads: of every text the same, with its padding."""
        return len(prepared.ids)

    def is_cut(self, prepared: TokenIds) -> bool:
        """Whether the text had more tokens than are read."""
        return prepared.is_cut

    def collate(self, prepared: Sequence[TokenIds]) -> Batch:
        """`ids`, int64 (B, T)."""
        return {"ids": torch.stack([text.ids for text in prepared])}

    def save(self, folder: Path) -> None:
        """Writes the tokenizer as JSON where it is one of transformers; its own open_clip brings along."""
        if isinstance(self.tokenizer, open_clip.tokenizer.HFTokenizer):
            # An embedding model does not chat, and the template would be a file that is no JSON.
            self.tokenizer.tokenizer.chat_template = None
            self.tokenizer.save_pretrained(folder)

    def export(self, folder: Path) -> Mapping[str, object]:
        """Writes the tokenizer where it is one of transformers; open_clip's own cleans texts as no JSON can say."""
        told = {"max_length": self.max_length, "padded_to": self.max_length}
        if not isinstance(self.tokenizer, open_clip.tokenizer.HFTokenizer):
            return {"tokenizer": None, "tokenize_with": "open_clip.SimpleTokenizer", **told}
        self.tokenizer.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        return {"tokenizer": "tokenizer.json", "clean_with": self.tokenizer.clean_fn.__name__, **told}

    def _tokens(self, text: object) -> int:
        """How many tokens a text has, special ones included."""
        if isinstance(self.tokenizer, open_clip.tokenizer.HFTokenizer):
            return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text), verbose=False).input_ids)
        return len(self.tokenizer.encode(text)) + 2


def read_tokenizer(architecture: Architecture) -> Any:
    """The tokenizer of a model. What the disk holds is not asked for.

    Raises:
        WeightsError: if it is neither there nor can be had, or cannot be saved as JSON.
    """
    with unheard():
        if not (name := architecture.config["text_cfg"].get("hf_tokenizer_name")):
            return open_clip.get_tokenizer(architecture.name)
        need_transformers(architecture.name, "tokenizer")
        try:
            try:
                tokenizer = open_clip.get_tokenizer(architecture.name, local_files_only=True)
            except OSError:
                tokenizer = open_clip.get_tokenizer(architecture.name)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            place, cure = name, f"With a network, run: hf download {name}"
            if architecture.folder:
                place, cure = architecture.folder, "Mend the folder: it has to hold tokenizer.json"
            raise WeightsError(f"The tokenizer of {place} cannot be loaded: {reason}\n{cure}") from error
    if not tokenizer.tokenizer.is_fast:
        raise WeightsError(
            f"The tokenizer of {architecture.name}, a {type(tokenizer.tokenizer).__name__}, has no tokenizer.json.\n"
            "Such a one cannot be saved with a model; choose another model."
        )
    return tokenizer


def image_preprocess(config: Mapping[str, Any], image_size: tuple[int, int]) -> PixelPreprocess:
    """What open_clip does with an image in evaluation, in the two halves that Finetuner asks for.

    Args:
        config: the fields of open_clip's `PreprocessCfg`.
        image_size: height and width of what the network sees.
    """
    described = open_clip.transform.PreprocessCfg(**config)
    steps = open_clip.transform.image_transform_v2(described, is_train=False).transforms
    pictures = steps[: [type(step).__name__ for step in steps].index("MaybeConvertMode")]
    return PixelPreprocess.of_transforms(pictures, image_size=image_size, mean=described.mean, std=described.std)
