"""How each kind of file or object becomes a table."""
