"""Where text comes from. Each module holds one source; `catalog.py` finds them by name."""
