"""All of it computes."""

from tests.conftest import HAS_TORCH

collect_ignore_glob = [] if HAS_TORCH else ["*"]
