"""A toy plugin: one small backbone for each task, written against the public contract alone."""
