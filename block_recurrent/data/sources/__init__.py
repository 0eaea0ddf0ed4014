"""Text sources, one per module; `catalog.py` finds them by name."""
