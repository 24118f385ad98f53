"""Finetuner beside the libraries that one would otherwise take: `python -m benchmarks.speed`, `nox -s bench`."""
