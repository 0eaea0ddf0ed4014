"""Flax (NNX) modules: the parameters of the functions in `ops`."""
