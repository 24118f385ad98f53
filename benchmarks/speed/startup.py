"""What a process costs before it does anything: seconds of the CPU, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks.speed.figures import Turn

ENCODE = "one text encoded"
COMMANDS = {
    "an empty Python": "pass",
    "import finetuner": "import finetuner",
    "finetuner list": "import sys; sys.argv = ['finetuner', 'list']; from finetuner_core.cli import main; main()",
    "import torch": "import torch",
    "import sentence_transformers": "import sentence_transformers",
    f"finetuner, {ENCODE}": "import sys, finetuner; finetuner.build_model(sys.argv[1]).encode(['a text'])",
    f"sentence-transformers, {ENCODE}": (
        "import sys; from sentence_transformers import SentenceTransformer as S; "
        "S(sys.argv[1], device='cpu').encode(['a text'])"
    ),
}


def run(code: str, argument: str, environment: Mapping[str, str]) -> Turn:
    """One process, from its start to its end.

    Args:
        code: what it runs.
        argument: handed to it.
        environment: what it sees.

    Raises:
        RuntimeError: if it fails.
    """
    began = time.perf_counter()
    command = [sys.executable, "-c", code, argument]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"It ended with {process.returncode}: {code}")
    scale = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * scale, "items": 1}
