"""Text to tokens to batches: numpy only, except `tasks.py`, which reads seqio and TFDS."""
