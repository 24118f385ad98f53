"""Memory that is kept while a model is trained, and not for longer."""

from __future__ import annotations

import numpy as np
import pytest

from finetuner_core.training import allocator
from finetuner_core.training.allocator import freed_memory_kept


def test_it_is_set_within_and_the_usual_afterwards_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(allocator, "_set_thresholds", sizes.append)

    @freed_memory_kept()
    def fail() -> None:
        assert sizes == [allocator._LARGEST]
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sizes == [allocator._LARGEST, allocator._USUAL]


def test_nothing_breaks_where_it_is_real() -> None:
    with freed_memory_kept():
        assert np.zeros(2**22).sum() == 0
    assert np.zeros(2**22).sum() == 0
