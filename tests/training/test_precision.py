"""Where is computed, and in what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetuner_core.errors import OptionError
from finetuner_core.modeling.device import choose_device
from finetuner_core.training.precision import choose_precision
from finetuner_core.values import Modality

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cpu:one", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_device(name)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f'device "{name}" cannot be used: ')
    assert lines[1:] == ["Use cpu, or auto."]


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_what_is_asked_for_is_taken(precision: Any, dtype: torch.dtype, device: torch.device) -> None:
    assert choose_precision(precision, device, ("text",)) is choose_precision(precision, device, ("vector",)) is dtype


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("mps")])
@pytest.mark.parametrize("modalities", [("text",), ("image",), ("text", "image"), ("vector",)])
def test_by_itself_it_takes_bfloat16_where_that_is_fast_and_never_for_vectors(
    modalities: tuple[Modality, ...], device: torch.device, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast and not including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    expected = fast and device.type != "mps" and modalities != ("vector",)
    assert choose_precision("auto", device, modalities) is (torch.bfloat16 if expected else torch.float32)
