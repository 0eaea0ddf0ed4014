"""Text to tokens to batches, without JAX. Only `seqio_tasks.py` and `sources/tfds.py` use TensorFlow."""
