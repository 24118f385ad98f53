"""Which of a query's nearest documents are taken as its negatives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetuner_core.errors import OptionError
from finetuner_core.values import quote

Sampling = Literal["top", "random"]


@dataclass(frozen=True)
class Rules:
    """What a negative has to be.

    The margins are those of NV-Retriever (Moreira et al. 2024, https://arxiv.org/abs/2407.15831), where the relative
    one is called TopK-PercPos and the absolute one TopK-MarginPos.

    Args:
        negatives: how many are taken for each row.
        top_k: the last rank that is looked at, of what is not known to belong to the query.
        skip_top: how many of the first ranks are left out.
        relative_margin: `score < positive - margin * abs(positive)`, which is `(1 - margin) * positive` for a positive
            score; `None` for none.
        absolute_margin: `score < positive - margin`; `None` for none.
        min_score: lower ones are left out.
        max_score: higher ones are left out.
        sampling: `top` takes the first that are left, `random` any of them.

    Raises:
        OptionError: if one is out of its range, or they leave nothing.
    """

    negatives: int = 3
    top_k: int = 50
    skip_top: int = 0
    relative_margin: float | None = 0.05
    absolute_margin: float | None = None
    min_score: float | None = None
    max_score: float | None = None
    sampling: Sampling = "top"

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("skip_top", 0), ("top_k", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.top_k - self.skip_top < self.negatives:
            raise OptionError(
                f"top_k is {self.top_k}, and without skip_top, {self.skip_top}, that leaves fewer ranks than "
                f"{self.negatives} negatives need.\nRaise top_k, or lower one of the others."
            )
        for name in ("relative_margin", "absolute_margin", "min_score", "max_score"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise OptionError(f"{name} is {value}; it must be a finite number.")
            if value is not None and value < 0 and "margin" in name:
                raise OptionError(f"{name} is {value}; it must be at least 0. Without one, write none.")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise OptionError(f"min_score is {self.min_score}, above max_score, {self.max_score}: nothing is between.")
        if self.sampling not in ("top", "random"):
            raise OptionError(f"sampling is {quote(self.sampling)}; it is top or random.")

    def choose(
        self, scores: np.ndarray, positive: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
        """Takes negatives for some rows.

        Args:
            scores: of the candidates of each row by rank, float32 (B, top_k); minus infinity where there is none.
            positive: the score of each row's positive, float32 (B,).
            random: what a random choice follows from.

        Returns:
            Whether enough are left, bool (B,); which candidates are taken, by falling score, int64 (B, negatives), of
            use only where they are enough; and how many candidates each rule has excluded, one that breaks several
            counted for the first.
        """
        left = np.isfinite(scores)
        excluded: Counter[str] = Counter()
        own = positive.astype(np.float64)[:, None]
        for name, allowed in (
            ("skip_top", np.broadcast_to(np.arange(scores.shape[1]) >= self.skip_top, scores.shape)),
            (
                "relative_margin",
                None if self.relative_margin is None else scores < own - self.relative_margin * np.abs(own),
            ),
            ("absolute_margin", None if self.absolute_margin is None else scores < own - self.absolute_margin),
            ("min_score", None if self.min_score is None else scores >= self.min_score),
            ("max_score", None if self.max_score is None else scores <= self.max_score),
        ):
            if allowed is not None:
                excluded[name] = int((left & ~allowed).sum())
                left &= allowed
        # The chosen ones first: by score, or in any order.
        key = -scores if self.sampling == "top" else random.random(scores.shape, dtype=np.float32)
        taken = np.argsort(np.where(left, key, np.inf), axis=1, kind="stable")[:, : self.negatives]
        falling = np.argsort(-np.take_along_axis(scores, taken, 1), axis=1, kind="stable")
        return left.sum(1) >= self.negatives, np.take_along_axis(taken, falling, 1), excluded
