"""What is put before texts: as a sentence-transformers repository declares it, or as a person asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetuner_core.plugin import OptionValue, Side, WeightsError

FILE = "config_sentence_transformers.json"

# Under which names sentence-transformers looks for what is put before texts of each side, the first that is there.
_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True)
class Prompts:
    """Prompts by name.

    Args:
        texts: the prompts.
        default_name: which of them is put before a text of neither side, `None` for none.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default_name: str | None = None

    @staticmethod
    def read(name: str, content: Mapping[str, object]) -> Prompts:
        """What a repository's file declares.

        Args:
            name: the repository, for messages.
            content: of the file.

        Raises:
            WeightsError: if it makes no sense.
        """
        texts, default = content.get("prompts") or {}, content.get("default_prompt_name")
        if not isinstance(texts, dict) or not all(isinstance(text, str | None) for text in texts.values()):
            raise WeightsError(f"{name}: in {FILE}, prompts must be texts by name.\nMend the file.")
        prompts = {str(key): text or "" for key, text in texts.items()}
        if default is not None and default not in prompts:
            if default not in _NAMES:
                known = ", ".join(prompts) or "none"
                raise WeightsError(
                    f'{name}: in {FILE}, default_prompt_name is "{default}", which is none of its prompts: {known}.\n'
                    "Mend the file."
                )
            default = None
        return Prompts(prompts, default)

    def with_options(self, options: Mapping[str, OptionValue]) -> Prompts:
        """These, but for what a person has asked for."""
        texts, default = dict(self.texts), self.default_name
        if isinstance(prompt := options.get("prompt"), str):
            default = default or "default"
            texts[default] = prompt
        for side in _NAMES:
            asked = options.get(f"{side}_prompt")
            if isinstance(asked, str):
                texts[side] = asked
            elif isinstance(prompt, str) and self._declared(side) is None:
                # Whoever asks for one prompt and names no side means both.
                texts[side] = prompt
        return replace(self, texts=texts, default_name=default)

    @property
    def default(self) -> str:
        """What is put before a text of neither side."""
        return self.texts[self.default_name] if self.default_name is not None else ""

    def of(self, side: Side) -> str:
        """What is put before a text of that side; without a prompt of its own none, not even the default one."""
        return self._declared(side) or ""

    def write(self, folder: Path, more: Mapping[str, object]) -> None:
        """Writes the file by which sentence-transformers, and `read`, know them, with what else it is to say."""
        content: dict[str, object] = {
            "model_type": "SentenceTransformer",
            "prompts": dict(self.texts) | {str(side): self.of(side) for side in _NAMES},
            "default_prompt_name": self.default_name,
            "similarity_fn_name": "cosine",
            **more,
        }
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def _declared(self, side: Side) -> str | None:
        return next((self.texts[name] for name in _NAMES[side] if name in self.texts), None)
