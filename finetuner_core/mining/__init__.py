"""Hard negatives: what looks as if it belonged to a query and does not."""
