"""How well a model finds what belongs together: search, metrics, report."""
