"""Flax (NNX) modules: named parameters and static configuration around the functions of `ops`."""
