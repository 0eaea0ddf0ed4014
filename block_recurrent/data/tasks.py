"""The text sources as seqio tasks, and what TensorFlow Datasets holds: the only module that imports either."""
