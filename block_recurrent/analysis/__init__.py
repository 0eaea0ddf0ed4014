"""Studies of trained models on whole splits, and the files that they leave (`results.py`, `comparison.py`)."""
