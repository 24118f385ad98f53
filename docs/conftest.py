"""Tests import the scripts beside them. Those of the template run where it is installed: `nox -s template`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore = ["plugin-template"]
