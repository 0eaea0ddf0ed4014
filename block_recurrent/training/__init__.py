"""One training run: the step, the loop, its checkpoints, its log and its record."""
