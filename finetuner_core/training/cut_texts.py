"""How many texts of the training data are longer than the model reads."""

from __future__ import annotations

from collections.abc import Sequence

from finetuner_core.interfaces import Prepared, Preprocess
from finetuner_core.modeling.embedding_model import count_cut, warn_of_cut
from finetuner_core.training.feed import ColumnFeed, Feed


class CutTexts:
    """Counts the texts of the first epoch that were longer than the model reads, and says so when it is over.

    Args:
        feeds: for each data set where its columns come from.
    """

    def __init__(self, feeds: Sequence[Sequence[Feed]]) -> None:
        kinds = [feed.preprocess for own in feeds for feed in own if isinstance(feed, ColumnFeed)]
        self.counts: dict[Preprocess, tuple[int, int]] = dict.fromkeys(kinds, (0, 0))
        self.said = False

    def see(self, feeds: Sequence[Feed], prepared: Sequence[Sequence[Prepared]]) -> None:
        """Counts those of a step."""
        for feed, items in zip(feeds, prepared, strict=True):
            if not self.said and isinstance(feed, ColumnFeed):
                cut, before = self.counts[feed.preprocess]
                self.counts[feed.preprocess] = (cut + count_cut(feed.preprocess, items), before + len(items))

    def say_once(self) -> None:
        """Says how many there were, the first time."""
        if not self.said:
            for preprocess, (cut, items) in self.counts.items():
                warn_of_cut(preprocess, cut, items)
        self.said = True

    def numbers(self) -> list[list[int]] | None:
        """What was counted so far; `None` where it was said."""
        return None if self.said else [list(counted) for counted in self.counts.values()]

    def restore(self, numbers: Sequence[Sequence[int]] | None) -> None:
        """Goes on counting from there."""
        self.said = numbers is None
        for preprocess, (cut, items) in zip(self.counts, numbers or (), strict=not self.said):
            self.counts[preprocess] = (cut, items)
