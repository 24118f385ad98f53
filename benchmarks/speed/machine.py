"""What a measurement was taken on: machine, versions, date. Nothing heavy is imported."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("torch", "transformers", "sentence-transformers", "timm", "pytorch-metric-learning"),
    *("tokenizers", "accelerate", "datasets", "numpy"),
)


def threads() -> int:
    """How many threads can compute at once here."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_bfloat16(cpuinfo: str | None = None) -> bool:
    """Whether this CPU multiplies matrices in bfloat16 itself; where that cannot be told, no.

    Args:
        cpuinfo: what Linux says of it; read where not given.
    """
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    flags = {
        word for line in text.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def describe(cores: int) -> dict[str, object]:
    """Everything that belongs to a figure.

    Args:
        cores: the threads that each side computes with.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "threads": cores,
        "bfloat16": has_bfloat16(),
        "memory": _total_memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def caption(facts: dict[str, object]) -> str:
    """One paragraph that says it."""
    versions = facts["versions"]
    assert isinstance(versions, dict)
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    memory = facts["memory"]
    return (
        f"{facts['cpu']}, {facts['threads']} threads, {'with' if facts['bfloat16'] else 'without'} bfloat16 products"
        f"{f', {memory / 2**30:.0f} GiB' if isinstance(memory, int) else ''}; {facts['system']}, "
        f"Python {facts['python']}, {named}; {facts['date']}."
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _line(path: str, name: str) -> str | None:
    lines = (line.partition(":") for line in _read(path).splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _total_memory() -> int | None:
    kilobytes = _line("/proc/meminfo", "MemTotal")
    return int(kilobytes.split()[0]) * 1024 if kilobytes else None
