"""The report: one self-contained HTML page that compares runs, with figures and tables."""
