"""One self-contained page that compares runs: reading what they left, figures, tables, the page."""
