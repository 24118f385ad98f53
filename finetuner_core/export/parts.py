"""What of a model becomes a file of its own, and items to try each with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetuner_core.errors import ExportError
from finetuner_core.interfaces import Preprocess
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.values import SIDES, Modality, Side

# Of different lengths and characters, as the vectors of a text should not depend on those beside it.
_TEXTS = (
    "a cat sits on the mat",
    "dog",
    "the quick brown fox jumps over the lazy dog, and the dog sits on the mat with the cat",
    "red shoes for running, size 42",
    "Größe, 東京 и мир",
    "how do I reset my password?",
    "The committee adjourned without a decision, and nobody in the room seemed to mind very much at all.",
    "machine learning",
)
_ITEMS = 32


@dataclass(frozen=True)
class Part:
    """An encoder that becomes a file.

    Args:
        folder: within the export, empty where the model has one part.
        encoder: what becomes the file.
        modality: what it takes.
        side: what its items are for, `None` where it serves both.
        preprocess: how it is fed.
        sides: how it is fed with what asks and with what is found, where that differs.
    """

    folder: str
    encoder: Encoder
    modality: Modality
    side: Side | None
    preprocess: Preprocess
    sides: Mapping[Side, Preprocess]


def parts_of(model: EmbeddingModel) -> list[Part]:
    """Each encoder of a model: one for each modality, or for each side."""
    parts = []
    for side, tower in model.sided_towers():
        for modality in tower.info.modalities:
            folder = side or (modality if len(tower.info.modalities) > 1 else "")
            usual = tower.preprocess(modality, side)
            sides: dict[Side, Preprocess] = {}
            if side is None:
                own = {it: tower.preprocess(modality, it) for it in SIDES if it in tower.loaded.sides}
                sides = {it: one for it, one in own.items() if one is not usual}
            parts.append(Part(folder, tower.encoder(modality), modality, side, usual, sides))
    return parts


def samples(part: Part, told: Mapping[str, object]) -> Sequence[object]:
    """Items to compare vectors on where a person gives none.

    Args:
        part: what they are for.
        told: what its preprocess said, for the width of vectors.
    """
    random = np.random.default_rng(0)
    if part.modality == "text":
        words = sorted({word for text in _TEXTS for word in text.split()})
        lengths = random.integers(2, 40, _ITEMS - len(_TEXTS))
        return [*_TEXTS, *(" ".join(random.choice(words, length)) for length in lengths)]
    if part.modality == "image":
        return [_picture(random, *size) for size in random.integers(40, 400, (_ITEMS // 2, 2)).tolist()]
    width = told.get("width")
    if not isinstance(width, int):
        raise ExportError(
            f"Nothing is known of the vectors that this {part.modality} model takes.\nGive some: data=..."
        )
    return list(random.normal(size=(_ITEMS, width)).astype(np.float32))


def _picture(random: np.random.Generator, width: int, height: int) -> object:
    """Waves in three colours, with some noise."""
    from PIL import Image

    y, x = np.mgrid[:height, :width] / random.uniform(10, 60)
    phases = random.uniform(0, 6, 3)
    waves = np.stack([np.sin(x + phases[0]), np.cos(y + phases[1]), np.sin(x + y + phases[2])], -1) * 90 + 128
    return Image.fromarray((waves + random.normal(scale=15, size=waves.shape)).clip(0, 255).astype(np.uint8))
