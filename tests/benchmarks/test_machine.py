"""What a measurement was taken on."""

from __future__ import annotations

import pytest

from benchmarks.speed.machine import caption, describe, has_bfloat16


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 sse\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16 sve\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: a CPU that has no avx512_bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_among_the_flags(cpuinfo: str, expected: bool) -> None:
    assert has_bfloat16(cpuinfo) is expected


def test_machine_versions_and_date_are_said() -> None:
    facts = describe(3)
    text = caption(facts)

    assert ", 3 threads, " in text
    assert str(facts["python"]) in text
    assert text.endswith(f"{facts['date']}.")
