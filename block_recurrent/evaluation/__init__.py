"""`evaluate` and `compare`: exact scores, confidence intervals, ablations and diagnostics."""
