"""From a name to an embedding model: load, strip the head, pool, project, normalise."""
