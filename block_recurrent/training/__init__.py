"""Training: the step, the loop and its actions, checkpoints, the log and the record of a run."""
