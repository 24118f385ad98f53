"""Runs that were, and runs that are: found, read and compared, without whatever computes."""
