"""Vectors of any number of items, into a file."""
