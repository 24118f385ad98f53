"""Frozen means cached: what a frozen part of a network gives is computed once and read from a file from then on."""
