"""Studies of a single question."""
